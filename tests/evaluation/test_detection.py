"""Image-level metrics against scikit-learn, torchmetrics and pencil and paper."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics as oracle
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ddl_d2.evaluation.functional import UndefinedMetricWarning, accuracy, average_precision, equal_error_rate, roc_auc

CASES = 500


def _random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of one of ten kinds: every kind of tie, type, range and imbalance that has broken a metric."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 400))
    labels = (rng.random(size) < rng.choice([0.0, 0.02, 0.5, 0.84, 1.0])).astype(np.int64)
    kind = seed % 10
    scores = rng.random(size)
    if kind == 1:
        scores = scores.round(1)  # many ties
    elif kind == 2:
        scores = np.full(size, rng.random())  # constant
    elif kind == 3:
        scores = scores.astype(np.float32)
    elif kind == 4:
        scores = rng.normal(0, 5, size)  # logits
    elif kind == 5:
        scores = labels * 0.5 + rng.integers(0, 2, size) * 0.25  # nearly separated, ties within and between
    elif kind == 6:
        scores = rng.choice([0.0, -0.0, 1.0, 5e-324, 1 - 2**-53], size)  # edges of the float format
    elif kind == 7:
        scores = rng.integers(-2, 3, size)  # integers
    elif kind == 8:
        scores = 0.5 + rng.integers(0, 3, size) * 2.0**-53  # differ only in the last bit of float64
    elif kind == 9:
        scores = np.where(rng.random(size) < 0.5, scores, scores.round(2)).astype(np.float16)
    return labels, scores


def _oracle_eer(labels: np.ndarray, scores: np.ndarray) -> float:
    fpr, tpr, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    # The polyline by its arc parameter, so that vertical steps are no problem for the root finder.
    position = np.arange(len(fpr))
    excess = interp1d(position, fpr + tpr - 1)
    return float(interp1d(position, fpr)(brentq(excess, 0, len(fpr) - 1, xtol=1e-15, rtol=1e-14)))


def test_random_cases_equal_scikit_learn():
    compared = undefined = 0
    for seed in range(CASES):
        labels, scores = _random_case(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = roc_auc(labels, scores), average_precision(labels, scores), equal_error_rate(labels, scores)
        assert accuracy(labels, scores) == pytest.approx(oracle.accuracy_score(labels, scores > 0.5), abs=1e-12)
        if len(set(labels.tolist())) < 2:
            assert all(math.isnan(value) for value in found)
            assert [item.category for item in caught] == [UndefinedMetricWarning] * 3
            undefined += 1
            continue
        assert not caught
        wide = scores.astype(np.float64)
        expected = oracle.roc_auc_score(labels, wide), oracle.average_precision_score(labels, wide)
        assert found[:2] == pytest.approx(expected, abs=1e-12), seed
        assert found[2] == pytest.approx(_oracle_eer(labels, wide), abs=1e-12), seed
        compared += 1
    print(f"{compared} cases compared, {undefined} undefined")
    assert compared > 250
    assert undefined > 100


def _tied_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 2, 300), rng.random(300).round(1).astype(np.float32)


def test_torchmetrics_agrees():
    labels, scores = _tied_case()
    arguments = torch.from_numpy(scores), torch.from_numpy(labels)
    assert roc_auc(labels, scores) == pytest.approx(float(binary_auroc(*arguments)), abs=1e-6)
    assert average_precision(labels, scores) == pytest.approx(float(binary_average_precision(*arguments)), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("forged_share", [0.001, 0.3, 0.98])
def test_pixels_of_a_stored_map(dtype, forged_share):
    """Small integers are ranked as they are; the numbers are those of the same values as floats."""
    rng = np.random.default_rng(2)
    top = np.iinfo(dtype).max
    scores = rng.choice([0, 1, top // 2, top - 1, top, *rng.integers(0, top, 20)], 5000).astype(dtype)
    labels = rng.random(5000) < forged_share
    for metric in (roc_auc, average_precision, equal_error_rate):
        assert metric(labels, scores) == metric(labels, scores.astype(np.float64))
    assert roc_auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)
    assert accuracy(labels, scores, threshold=1) == accuracy(labels, scores.astype(np.float64), threshold=1)


def test_by_hand():
    # Fakes .9 .6 .3, reals .6 .1: of 6 pairs .9 wins 2, .6 ties once and wins once, .3 wins one of two.
    labels, scores = [1, 1, 1, 0, 0], [0.9, 0.6, 0.3, 0.6, 0.1]
    assert roc_auc(labels, scores) == (2 + 1.5 + 1) / 6
    # Thresholds .9, .6, .3: precision 1/1, 2/3, 3/4, each gaining 1/3 of the recall; .1 gains none.
    assert average_precision(labels, scores) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    # Predicted fake: .9, .6 and the real .6; right are .9, .6, .1.
    assert accuracy(labels, scores) == 3 / 5
    # ROC points (0,0) (0,1/3) (1/2,2/3) (1/2,1) (1,1). A share x of the way from the 2nd to the 3rd the false positive
    # rate is x/2 and the false negative rate 2/3 - x/3: equal at x = 4/5, where both are 2/5.
    assert equal_error_rate(labels, scores) == pytest.approx(0.4, abs=1e-15)


def test_constant_scores_are_chance():
    assert roc_auc([0, 1, 1], [0.3] * 3) == 0.5
    assert equal_error_rate([0, 1, 1], [0.3] * 3) == 0.5
    assert average_precision([0, 1, 1], [0.3] * 3) == pytest.approx(2 / 3, abs=1e-15)


def test_threshold_is_strict():
    assert accuracy([0, 1], [0.5, 0.5]) == 0.5
    assert accuracy([0, 1], [0.2, 0.3], threshold=0.25) == 1.0


def test_order_does_not_change_a_bit():
    labels, scores = _tied_case()
    order = np.random.default_rng(0).permutation(len(labels))
    for metric in (roc_auc, average_precision, equal_error_rate, accuracy):
        assert metric(labels, scores) == metric(labels[order], scores[order])


@pytest.mark.parametrize("metric", [roc_auc, average_precision, equal_error_rate, accuracy])
def test_refuses_what_cannot_be_ranked(metric):
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"at index 2 is not finite"):
            metric([0, 1, 1], [0.1, 0.2, bad])
    with pytest.raises(ValueError, match="index 1 is neither 0"):
        metric([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="one length"):
        metric([0, 1], [0.1])
    with pytest.warns(UndefinedMetricWarning):
        assert math.isnan(metric([], []))


def test_speed_of_a_quarter_million():
    """PERFORMANCE target 20x scikit-learn; a busy machine is given half of that."""
    rng = np.random.default_rng(0)
    labels = (rng.random(240_000) < 0.84).astype(np.int64)
    scores = rng.random(240_000).astype(np.float32).astype(np.float64)

    def fastest(function) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            function(labels, scores)
            times.append(time.perf_counter() - start)
        return min(times)

    ratio = fastest(oracle.roc_auc_score) / fastest(roc_auc)
    print(f"{ratio:.1f} times faster than scikit-learn")
    assert roc_auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-14)
    assert ratio > 10
