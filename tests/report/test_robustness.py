"""Robustness: metrics of every condition, masks that follow, a run that goes on, and its report."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

import ddl_d2
from ddl_d2.data.datasets import load_dataset
from ddl_d2.data.transforms.corruptions import DELIVERIES
from ddl_d2.errors import InputError
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.inference.model import Model
from ddl_d2.inference.results_file import ResultsFile
from ddl_d2.io.image import write_png
from ddl_d2.report.robustness import Condition, conditions_of, measure_robustness
from ddl_d2.report.robustness_figure import robustness_figure
from ddl_d2.report.robustness_report import make_report, report_csv, report_json, report_text, summary_line
from tests.grain import Grain


@pytest.fixture(scope="module")
def cfg():
    return ddl_d2.load_config("quickstart/mask2former_efficientnet_lite0", ["MODEL.DEVICE", "cpu"])


@pytest.fixture
def model(cfg):
    return Model(cfg, Grain())


@pytest.fixture
def rows(tmp_path):
    """Two fakes with a red square and grain, two smooth reals."""
    noise = np.random.default_rng(0)
    for number in range(2):
        for kind in ("real", "fake"):
            image = np.full((100, 120, 3), 90.0)
            if kind == "fake":
                image += noise.normal(0, 14, (100, 120, 1))
                mask = np.zeros((100, 120), bool)
                mask[20:70, 30 : 80 + 10 * number] = True
                image[mask] += (110, 0, 0)
                write_png(tmp_path / "set/masks" / f"{number}.png", mask)
            write_png(tmp_path / "set" / kind / f"{number}.png", np.clip(image, 0, 255).astype(np.uint8))
    return [dict(row) for row in load_dataset(tmp_path / "set", None)[0]]


CONDITIONS = conditions_of(["crop", "blur", "screenshot"], [1, 5])


def _run(model, rows, folder, conditions=CONDITIONS, **options):
    found = {one: [] for one in conditions}
    with ResultsFile(folder, {"made": "by a test"}) as results:
        for of_image in measure_robustness(model, rows, conditions, results, **options):
            for condition, one in of_image.items():
                found[condition].append(one)
    return found


def test_conditions():
    assert [str(one) for one in CONDITIONS] == [
        *("none/0", "crop/1", "crop/5", "screenshot/1", "screenshot/5", "blur/1", "blur/5"),
    ]
    assert len(conditions_of()) == 1 + 15 * 5
    assert Condition.parse("motion_blur/3") == Condition("motion_blur", 3)
    with pytest.raises(InputError, match="there is no corruption rain; there are jpeg, webp"):
        conditions_of(["rain"])


def test_figures_of_every_condition(model, rows, tmp_path):
    report = make_report(_run(model, rows, tmp_path / "out"))
    plain = report.figures[Condition("none", 0)]
    assert (plain["auc"], plain["f1"], plain["false_alarms"], plain["found"]) == (1.0, 1.0, 0.0, 1.0)
    assert plain["ece_drift"] == 0
    for condition, values in report.figures.items():
        assert values["f1"] > 0.9, condition  # the masks follow crop and screenshot
        assert (values["num_fake"], values["num_real"]) == (2, 2)
    assert report.figures[Condition("blur", 5)]["found"] == 0.0
    blurred = report.figures[Condition("blur", 5)]
    assert blurred["ece_drift"] == pytest.approx(blurred["ece"] - plain["ece"])
    # Each corruption weighs the same: 1/3 of the mean of its two levels.
    expected = np.mean(
        [np.mean([report.figures[Condition(n, k)]["found"] for k in (1, 5)]) for n in ("crop", "screenshot", "blur")]
    )
    assert report.means["found"] == pytest.approx(expected)


def test_verdicts_that_flip(model, rows, tmp_path):
    """Blur of 3 pixels makes both grainy fakes of four images real; under the twelve deliveries blur of 1 does, too."""
    report = make_report(_run(model, rows, tmp_path / "out"))
    assert report.figures[Condition("none", 0)]["flips"] == 0.0
    assert report.figures[Condition("blur", 5)]["flips"] == 0.5
    assert math.isnan(report.fragile)
    conditions = [Condition("none", 0), *(Condition(one.corruption, one.level) for one in DELIVERIES)]
    assert make_report(_run(model, rows, tmp_path / "all", conditions)).fragile == 0.5


def test_neither_batches_nor_threads_nor_order_change_anything(model, rows, tmp_path):
    first = _run(model, rows, tmp_path / "a")
    assert _run(model, rows, tmp_path / "b", batch_size=3, workers=2) == first
    backward = _run(model, rows[::-1], tmp_path / "c")
    assert {key: sorted(values) for key, values in backward.items()} == {k: sorted(v) for k, v in first.items()}


def test_a_run_goes_on_where_it_ended(model, rows, tmp_path):
    whole = _run(model, rows, tmp_path / "whole")
    with ResultsFile(tmp_path / "part", {"made": "by a test"}) as results:
        measured = measure_robustness(model, rows, CONDITIONS, results)
        next(measured)
        next(measured)
        measured.close()
    with open(tmp_path / "part/results.jsonl", "a") as file:
        file.write('{"file": "cut o')  # as a kill leaves it
    model.predictor.batches.clear()
    assert _run(model, rows, tmp_path / "part") == whole
    assert sum(model.predictor.batches) == 2 * len(CONDITIONS)


def test_an_image_that_cannot_be_read_is_told_at_the_end(model, rows, tmp_path):
    (tmp_path / "set/real/0.png").write_bytes(b"none")
    with pytest.raises(IncompleteEvaluationError, match="1 of 4 images were not scored") as stopped:
        _run(model, rows, tmp_path / "out")
    assert [bad.image_id for bad in stopped.value.files] == ["real/0.png"]
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 1 + 3


def test_the_report(model, rows, tmp_path):
    report = make_report(_run(model, rows, tmp_path / "out"))
    text = report_text(report)
    assert text.startswith(summary_line(report))
    assert "screenshot *" in text
    assert "blur *" not in text
    table = list(csv.DictReader(report_csv(report).splitlines()))
    assert [(row["corruption"], row["level"], row["strength"]) for row in table[:3]] == [
        *(("none", "0", ""), ("crop", "1", "0.05"), ("crop", "5", "0.3")),
    ]
    assert float(table[-1]["found"]) == 0.0
    content = json.loads(report_json(report, {"seed": 0}))
    assert content["robust_auc"] == report.robust_auc
    assert content["conditions"]["none/0"]["auc"] == 1.0
    assert robustness_figure(report, title="a title").startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore::ddl_d2.evaluation.functional.UndefinedMetricWarning")
def test_real_images_alone_have_false_alarms_and_no_auc(model, rows, tmp_path):
    report = make_report(_run(model, [row for row in rows if not row["is_fake"]], tmp_path / "out"))
    assert math.isnan(report.robust_auc)
    assert report.means["false_alarms"] == 0.0
    assert json.loads(report_json(report, {}))["robust_auc"] is None
    assert "n/a" in report_text(report)
