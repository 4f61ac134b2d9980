"""The table of images: what it refuses, how it treats repeats, and the files made from it."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation import METRIC_NAMES, ImageResult, ResultTable, metrics_table, write_metrics


def _row(image_id: str = "a.png", **values) -> ImageResult:
    defaults = {"is_fake": 1, "score": 0.75, "counts": (1, 1, 1, 13), "has_mask": True, "height": 4, "width": 4}
    return ImageResult(image_id=image_id, **{**defaults, **values})


def _real(image_id: str = "r.png", **values) -> ImageResult:
    return _row(image_id, **{"is_fake": 0, "score": 0.25, "counts": (0, 0, 0, 16), **values})


def _random_rows(count: int) -> list[ImageResult]:
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        fake = int(rng.integers(0, 2))
        counts = rng.multinomial(64, [0.25] * 4 if fake else [0, 0.2, 0, 0.8])
        rows.append(ImageResult(f"{index:03}.png", fake, float(rng.random()), tuple(counts.tolist()), True, 8, 8))
    return rows


def test_metrics_by_hand():
    metrics = ResultTable([_row(), _real()]).metrics()
    assert tuple(metrics) == METRIC_NAMES  # a frozen list: other programs read these names
    assert metrics["auc"] == metrics["accuracy"] == metrics["ap"] == 1.0
    assert metrics["eer"] == 0.0
    assert metrics["f1"] == 0.5  # 2 TP / (2 TP + FP + FN) = 2 / 4
    assert metrics["iou"] == pytest.approx(1 / 3, abs=1e-15)
    assert metrics["final"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-15)
    counted = {key: value for key, value in metrics.items() if key.startswith("num_")}
    assert counted == {
        "num_images": 2,
        "num_fake": 1,
        "num_real": 1,
        "num_localized": 1,
        "num_fake_without_mask": 0,
        "num_empty_masks": 0,
        "num_resized_masks": 0,
    }


def test_fake_without_mask_is_detected_but_not_localized():
    alone = ResultTable([_row(), _real()]).metrics()
    unknown = _row("b.png", counts=None, has_mask=False, score=0.1)
    metrics = ResultTable([_row(), _real(), unknown]).metrics()
    assert metrics["auc"] == 0.5
    assert (metrics["num_fake_without_mask"], metrics["num_fake"], metrics["num_localized"]) == (1, 2, 1)
    for key in ("f1", "iou", "pooled_f1", "miou", "all_f1"):
        assert metrics[key] == alone[key]


def test_order_and_repeats_change_nothing():
    rows = _random_rows(50)
    expected = ResultTable(rows).metrics()
    shuffled = [rows[index] for index in np.random.default_rng(1).permutation(50)]
    assert ResultTable(shuffled + rows[:13]).metrics() == expected


def test_repeats_that_differ_by_rounding_are_one_image():
    one, other = _row(score=0.75), _row(score=0.75 + 1e-5)
    assert ResultTable([one, other]).distinct() == ResultTable([other, one]).distinct() == [one]


@pytest.mark.parametrize(
    "changed", [{"score": 0.9}, {"counts": (2, 0, 1, 13)}, {"is_fake": 0}, {"height": 2, "width": 8}, {"score": None}]
)
def test_repeats_that_contradict_each_other_are_refused(changed):
    with pytest.raises(EvaluationError, match=r"a\.png was evaluated twice"):
        ResultTable([_row(), _row(**changed)]).distinct()


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.5])
def test_impossible_scores_are_refused(score):
    with pytest.raises(EvaluationError, match=r"a\.png: the fake score"):
        ResultTable([_row(score=score)])


def test_impossible_rows_are_refused():
    with pytest.raises(EvaluationError, match="do not add up to 4 x 4"):
        ResultTable([_row(counts=(1, 1, 1, 1))])
    with pytest.raises(EvaluationError, match="is_fake is 2"):
        ResultTable([_row(is_fake=2)])


def test_every_image_must_have_been_scored():
    table = ResultTable([_row("a.png"), _real("b.png")])
    table.check_complete(["b.png", "a.png"])
    with pytest.raises(EvaluationError, match=r"2 of 4 images of the dataset were not scored: c\.png, d\.png"):
        table.check_complete(["a.png", "b.png", "d.png", "c.png"])
    with pytest.raises(EvaluationError, match=r"1 scored images are not in the dataset: b\.png"):
        table.check_complete(["a.png"])


def test_nothing_is_left_out_in_silence():
    with pytest.raises(EvaluationError, match=r"have no label: r\.png"):
        ResultTable([_row(), _real(is_fake=None)]).metrics()
    with pytest.raises(EvaluationError, match=r"no fake score though others do: r\.png"):
        ResultTable([_row(), _real(score=None)]).metrics()
    with pytest.raises(EvaluationError, match=r"no forgery map though others do: r\.png"):
        ResultTable([_row(), _real(counts=None)]).metrics()


def test_detection_only_and_localization_only():
    detection = ResultTable([_row(counts=None), _real(counts=None)]).metrics()
    assert detection["auc"] == 1.0
    assert math.isnan(detection["f1"])
    assert math.isnan(detection["final"])
    assert detection["num_fake_without_mask"] == 0  # the truth is known, the map is what is missing
    localization = ResultTable([_row(score=None), _real(score=None)]).metrics()
    assert math.isnan(localization["auc"])
    assert localization["f1"] == 0.5


def test_files(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = ResultTable([_row()]).metrics()
    first, second = tmp_path / "new" / "metrics.json", tmp_path / "again.json"
    write_metrics(first, metrics)
    write_metrics(second, dict(reversed(metrics.items())))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text())["auc"] is None  # NaN is not JSON
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "new"]
    lines = metrics_table(metrics).splitlines()[2:5]
    assert [line.split()[:2] for line in lines] == [
        ["auc", "n/a"],
        ["f1", "0.5000"],
        ["iou", "0.3333"],
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"auc": 0.5})
    with pytest.raises(ValueError):
        write_metrics(path, {"auc": math.inf})
    assert json.loads(path.read_text()) == {"auc": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_names_in_two_forms_of_unicode_are_explained():
    table = ResultTable([ImageResult("cafe\u0301.png", 0, 0.1, None, True, 2, 2)])
    with pytest.raises(
        EvaluationError, match=r"1 of 1 images of the dataset were not scored: .*another form of Unicode"
    ):
        table.check_complete(["caf\u00e9.png"])
    with pytest.raises(EvaluationError, match=r"not scored: b\.png$"):
        table.check_complete(["b.png"])
