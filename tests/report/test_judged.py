"""Verdicts, their counts and the operating point in words, and which images are shown."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.evaluation.results import ImageResult
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.likelihood_ratio import LOGISTIC, LikelihoodRatio
from ddl_d2.report.chosen import chosen_images
from ddl_d2.report.judged import Judged
from tests.fusion.small_stores import write_store

# Name, label, score, (TP, FP, FN, TN) of four pixels.
IMAGES = [
    ("f0", 1, 0.9, (2, 0, 0, 2)),  # F1 1
    ("f1", 1, 0.8, (1, 1, 1, 1)),  # F1 1/2
    ("f2", 1, 0.3, (0, 0, 2, 2)),
    ("f3", 1, 0.1, (0, 0, 2, 2)),
    ("r0", 0, 0.7, (0, 1, 0, 3)),
    ("r1", 0, 0.2, (0, 0, 0, 4)),
    ("r2", 0, 0.5, (0, 0, 0, 4)),
    ("r3", 0, 0.6, (0, 0, 0, 4)),
]
CALIBRATION = Calibration(
    ratio=LikelihoodRatio(LOGISTIC, (-1.0, 1.0), slope=1.0),
    false_alarm_rate=0.05,
    miss_rate=0.05,
    forged_above=0.75,
    none_below=0.25,
    thresholds={},
    temperature=1.0,
    map_threshold=None,
    corpus="a corpus",
    counts={"real": 4, "fake": 4},
    weights_sha256="",
    tensors_sha256="",
    settings={},
    created="2026-01-01",
    held_out={},
)


def rows(*, maps: bool = True, faceless: str = ""):
    return [
        ImageResult(name, label, score, counts if maps else None, True, 2, 2, has_face=name != faceless)
        for name, label, score, counts in IMAGES
    ]


@pytest.fixture
def judge(tmp_path):
    store = write_store(tmp_path / "store", {name: score for name, _, score, _ in IMAGES})
    return lambda images, calibration=None: Judged("one", store, images, calibration, 0.5)


def test_a_plain_threshold_in_words(judge):
    """0.5 itself is not above it; Wilson's interval of 2 of 4 is 15.0 to 85.0 %."""
    said = judge(rows()).operating_point()
    assert said == [
        "Uncalibrated: a score above 0.5 is called fake, any other real.",
        "Of 4 real images 2 were called fake: 50.0 % (95 % interval: 15.0 to 85.0 %). These are the false alarms.",
        "Of 4 fakes 2 were called fake: 50.0 % (95 % interval: 15.0 to 85.0 %). The other 2 were not.",
    ]


def test_an_image_without_a_face_is_no_false_alarm(judge):
    one = judge(rows(faceless="r0"))
    assert "1 were called fake: 25.0 %" in one.operating_point()[1]
    assert one.operating_point()[-1] == "No face was found in 1 of all: nothing is said of them."
    assert [line[0] for line in one.verdict_table()] == ["fake", "real", "no face found"]
    assert one.verdict_table()[2][1].startswith("1 of 4")


def test_a_calibration_decides_as_it_does_on_each_image(judge):
    one = judge(rows(), CALIBRATION)
    assert one.verdicts.tolist() == [CALIBRATION.verdict(score).label for _, _, score, _ in IMAGES]
    assert one.verdict(0).log10_lr == pytest.approx(np.log10(9))
    assert "a corpus (4 forged and 4 real images)" in one.operating_point()[0]
    assert [line[1].split(":")[0] for line in one.verdict_table()] == ["0 of 4", "1 of 4", "3 of 4"]


def names(one: Judged) -> dict[str, list[str]]:
    return {name: [one.rows[index].image_id for index in chosen] for name, _, chosen in chosen_images(one)}


def test_galleries_by_hand(judge):
    assert names(judge(rows())) == {
        "Best": ["f0"], "Worst": ["f1"], "False alarms": ["r0", "r3"], "Misses": ["f3", "f2"],
    }  # fmt: skip


def test_without_maps_the_scores_order_the_best(judge):
    assert names(judge(rows(maps=False))) == {
        "Best": ["f0", "f1"], "False alarms": ["r0", "r3"], "Misses": ["f3", "f2"],
    }  # fmt: skip


def test_what_a_calibration_leaves_open_has_a_gallery(judge):
    """Of r2 (0.5) the ratio is 1; f2 and r0 lie at odds of 3/7 and 7/3, r3 at 3/2."""
    found = names(judge(rows(), CALIBRATION))
    assert found["Inconclusive"][:2] == ["r2", "r3"]
    assert set(found["Inconclusive"][2:]) == {"f2", "r0"}
    assert found["Misses"] == ["f3"]
