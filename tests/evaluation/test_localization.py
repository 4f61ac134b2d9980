"""Pixel-level metrics: golden numbers with their arithmetic, identities, scikit-learn and torchmetrics as oracles."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from ddl_d2.evaluation.functional import (
    UndefinedMetricWarning,
    double_f1_per_image,
    f1_iou_per_image,
    final_score,
    localization_metrics,
    pixel_counts,
)
from ddl_d2.predictions.maps import binarize_map, quantize_map

CASES = 500


def _grid(*pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((4, 4), dtype=bool)
    for row, column in pixels:
        mask[row, column] = True
    return mask


def _golden() -> tuple[np.ndarray, np.ndarray]:
    """Counts (4, 4) of the images A, B, C (fake) and R (real), and their labels."""
    a_target, a_prediction = _grid(), _grid()
    a_target[0:2] = True  # 8 pixels
    a_prediction[0:2, 0:3] = True  # 6 of them
    pairs = [
        (a_prediction, a_target),  # TP 6 FP 0 FN 2
        (_grid((0, 0), (0, 1)), _grid((0, 0))),  # TP 1 FP 1 FN 0
        (_grid(), _grid((3, 3))),  # TP 0 FP 0 FN 1
        (_grid((2, 2)), _grid()),  # real, FP 1
    ]
    return np.array([pixel_counts(*pair) for pair in pairs]), np.array([1, 1, 1, 0])


def test_golden_counts():
    assert _golden()[0].tolist() == [[6, 0, 2, 8], [1, 1, 0, 14], [0, 0, 1, 15], [0, 1, 0, 15]]


def test_golden_numbers():
    found = localization_metrics(*_golden())
    # A: F1 12/14, IoU 6/8. B: 2/3, 1/2. C: 0, 0. Means over the three fakes.
    assert found["f1"] == pytest.approx((12 / 14 + 2 / 3) / 3, abs=1e-12) == pytest.approx(0.507937, abs=1e-6)
    assert found["iou"] == pytest.approx((0.75 + 0.5) / 3, abs=1e-12) == pytest.approx(0.416667, abs=1e-6)
    # Pooled over A, B, C: TP 7, FP 1, FN 3: F1 14/18, IoU 7/11.
    assert found["pooled_f1"] == pytest.approx(14 / 18, abs=1e-12) == pytest.approx(0.777778, abs=1e-6)
    assert found["pooled_iou"] == pytest.approx(7 / 11, abs=1e-12) == pytest.approx(0.636364, abs=1e-6)
    # Background of A, B, C: TN 37 of 37 + 1 + 3: .902439; its mean with 7/11.
    assert found["miou"] == pytest.approx((37 / 41 + 7 / 11) / 2, abs=1e-12) == pytest.approx(0.769401, abs=1e-6)
    # With R one false positive more: F1 14/19, IoU 7/12.
    assert found["all_f1"] == pytest.approx(14 / 19, abs=1e-12) == pytest.approx(0.736842, abs=1e-6)
    assert found["all_iou"] == pytest.approx(7 / 12, abs=1e-12) == pytest.approx(0.583333, abs=1e-6)
    assert (found["num_localized"], found["num_empty_masks"], found["num_skipped"]) == (3, 0, 0)


def test_golden_mean_with_reals_counted_as_zero():
    """IMDL-BenCo's numbers when authentic images are left in the list: R has F1 = IoU = 0 / 1."""
    f1, iou = f1_iou_per_image(_golden()[0])
    assert f1.mean() == pytest.approx(0.380952, abs=1e-6)
    assert iou.mean() == pytest.approx(0.3125, abs=1e-6)


def test_final_scores_of_the_leaderboard():
    assert final_score(0.9495, 0.7778, 0.7179) == pytest.approx(0.81507, abs=5e-6)
    assert final_score(0.9790, 0.7759, 0.6902) == pytest.approx(0.81503, abs=5e-6)
    assert final_score(0.963, 0.819, 0.756) == pytest.approx(0.846, abs=1e-12)
    assert math.isnan(final_score(math.nan, 1, 1))


def test_m5_takes_the_better_polarity():
    # 3 forged of 4, none predicted; inverted all 4 are: TP 3, FP 1, F1 6/7.
    assert double_f1_per_image([[0, 0, 3, 1]]).tolist() == [6 / 7]
    assert double_f1_per_image([[2, 0, 0, 2]]).tolist() == [1.0]


def test_random_masks_equal_scikit_learn():
    compared = empty = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        shape = rng.integers(1, 24, 2)
        prediction = rng.random(shape) < rng.choice([0, 0.05, 0.5, 1])
        target = rng.random(shape) < rng.choice([0, 0.05, 0.5, 1])
        counts = pixel_counts(prediction, target)
        flat = target.ravel(), prediction.ravel()
        (tn, fp), (fn, tp) = oracle.confusion_matrix(*flat, labels=[False, True])
        assert counts == (tp, fp, fn, tn)
        f1, iou = (float(value[0]) for value in f1_iou_per_image([counts]))
        if not prediction.any() and not target.any():
            assert math.isnan(f1)
            assert math.isnan(iou)
            empty += 1
            continue
        assert f1 == pytest.approx(oracle.f1_score(*flat, zero_division=0), abs=1e-12)
        assert iou == pytest.approx(oracle.jaccard_score(*flat, zero_division=0), abs=1e-12)
        assert iou == pytest.approx(f1 / (2 - f1), abs=1e-12)
        compared += 1
    print(f"{compared} masks compared, {empty} empty twice")
    assert compared > 300
    assert empty > 10


def test_torchmetrics_agrees():
    rng = np.random.default_rng(5)
    prediction, target = rng.random((40, 31)) < 0.4, rng.random((40, 31)) < 0.3
    f1, iou = f1_iou_per_image([pixel_counts(prediction, target)])
    arguments = torch.from_numpy(prediction).int(), torch.from_numpy(target).int()
    assert f1[0] == pytest.approx(float(binary_f1_score(*arguments)), abs=1e-6)
    assert iou[0] == pytest.approx(float(binary_jaccard_index(*arguments)), abs=1e-6)


def test_identities_of_random_tables():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 50, (int(rng.integers(1, 30)), 4))
        counts[:, 0] += 1
        found = localization_metrics(counts, np.ones(len(counts), int))
        assert found["pooled_iou"] == pytest.approx(found["pooled_f1"] / (2 - found["pooled_f1"]), abs=1e-12)
        # x / (2 - x) is convex, so per-image means lie between it and the diagonal.
        assert found["f1"] / (2 - found["f1"]) - 1e-12 <= found["iou"] <= found["f1"] + 1e-12
        assert found["all_f1"] == found["pooled_f1"]
        order = rng.permutation(len(counts))
        assert localization_metrics(counts[order], np.ones(len(counts), int)) == found


@pytest.mark.parametrize(
    ("empty_score", "f1", "pooled_f1", "localized"),
    [
        # Fakes: one perfect (2 of 2 pixels), one empty mask with nothing predicted, one empty mask with 2 predicted.
        ("skip", 1.0, 1.0, 1),
        ("0", 1 / 3, 4 / 6, 3),
        ("1", 2 / 3, 4 / 6, 3),
    ],
)
def test_empty_masks(empty_score, f1, pooled_f1, localized):
    counts = [[2, 0, 0, 2], [0, 0, 0, 4], [0, 2, 0, 2]]
    found = localization_metrics(counts, [1, 1, 1], empty_score=empty_score)
    assert found["f1"] == pytest.approx(f1, abs=1e-15)
    assert found["pooled_f1"] == pytest.approx(pooled_f1, abs=1e-15)
    assert found["all_f1"] == pytest.approx(4 / 6, abs=1e-15)  # M4 sees every image: TP 2, FP 2
    assert (found["num_localized"], found["num_empty_masks"]) == (localized, 2)


def test_nothing_predicted_on_a_forged_image_scores_zero():
    found = localization_metrics([[0, 0, 5, 11]], [1])
    assert (found["f1"], found["iou"], found["pooled_f1"], found["num_localized"]) == (0, 0, 0, 1)


def test_images_without_mask_take_no_part():
    with_unknown = localization_metrics([[1, 1, 0, 2], [0, 0, 0, 0]], [1, 1], has_mask=[True, False])
    alone = localization_metrics([[1, 1, 0, 2]], [1])
    assert with_unknown == {**alone, "num_skipped": 1}


def test_wholly_forged_image_has_no_background_class():
    assert localization_metrics([[16, 0, 0, 0]], [1])["miou"] == 1.0


def test_reals_only_is_undefined():
    with pytest.warns(UndefinedMetricWarning):
        found = localization_metrics([[0, 3, 0, 1], [0, 0, 0, 4]], [0, 0])
    assert math.isnan(found["f1"])
    assert math.isnan(found["pooled_iou"])
    assert math.isnan(found["miou"])
    assert found["all_f1"] == 0.0  # false positives of reals do count there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in ("skip", "1"):
            assert math.isnan(localization_metrics(np.zeros((0, 4), int), [], empty_score=value)["pooled_f1"])


def test_pooling_does_not_overflow():
    row = [40_000_000, 0, 20_000_000, 4_000_000]
    found = localization_metrics(np.array([row] * 100, dtype=np.int32), [1] * 100)  # sums pass 2**31
    assert found["pooled_f1"] == pytest.approx(0.8, abs=1e-15)


def test_counts_of_awkward_masks():
    rng = np.random.default_rng(0)
    wide = rng.random((2, 30, 40)) < 0.5
    for view in (lambda x: x[::-1, ::-2], lambda x: x.T, lambda x: x[3:4, 5:6], lambda x: x[:, :0], lambda x: x[7]):
        prediction, target = view(wide[0]), view(wide[1])
        expected = ((prediction & target), (prediction & ~target), (~prediction & target), (~prediction & ~target))
        found = pixel_counts(prediction, target)
        assert found == tuple(int(part.sum()) for part in expected)
        assert all(type(value) is int for value in found)
    whole = np.ones((5000, 4000), bool)  # 20 million: more than a float32 counts
    assert pixel_counts(whole, whole) == (20_000_000, 0, 0, 0)
    assert pixel_counts(whole, ~whole) == (0, 20_000_000, 0, 0)


def test_refuses_what_is_no_table():
    with pytest.raises(ValueError, match="must be bool"):
        pixel_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="sizes must be equal"):
        pixel_counts(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="integer table"):
        localization_metrics([[0.5, 0, 0, 0]], [1])
    with pytest.raises(ValueError, match="negative: row 1"):
        localization_metrics([[0, 0, 0, 1], [0, -1, 0, 1]], [1, 1])
    with pytest.raises(ValueError, match="must be equal"):
        localization_metrics([[0, 0, 0, 1]], [1, 1])
    with pytest.raises(ValueError, match="empty_score"):
        localization_metrics([[0, 0, 0, 1]], [1], empty_score="half")


def test_threshold_is_the_same_before_and_after_storing():
    half = np.float32(0.5)
    values = [0, np.nextafter(half, np.float32(0)), half, np.nextafter(half, np.float32(1)), 1]
    for dtype in (np.float16, np.float32, np.float64):
        forgery_map = np.array([values], dtype=dtype)
        stored = quantize_map(forgery_map)
        assert (binarize_map(stored) == binarize_map(forgery_map)).all(), dtype
    # float32: just below one half, one half and just above become 127, 127 and 128.
    assert quantize_map(np.array([values], np.float32)).tolist() == [[0, 127, 127, 128, 255]]
    random = np.random.default_rng(0).random((200, 200)).astype(np.float32)
    assert (binarize_map(quantize_map(random)) == binarize_map(random)).all()
    assert np.abs(quantize_map(random) / 255.0 - random).max() <= 0.5 / 255 + 1e-6


def test_binarize_map():
    assert binarize_map(np.array([[127, 128]], np.uint8)).tolist() == [[False, True]]
    assert binarize_map(np.array([[51, 52]], np.uint8), 0.2).tolist() == [[False, True]]  # 51 / 255 is 0.2 itself
    assert binarize_map(np.array([[0.5, 0.51]])).tolist() == [[False, True]]
    with pytest.raises(ValueError, match="float in"):
        binarize_map(np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match="NaN"):
        quantize_map(np.array([[np.nan]]))
