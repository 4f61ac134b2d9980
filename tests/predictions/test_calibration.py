"""Applying a calibration: verdicts, words, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ddl_d2.errors import CalibrationError
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.likelihood_ratio import LikelihoodRatio, in_words
from ddl_d2.predictions.settings import prediction_settings
from ddl_d2.predictions.verdict import Verdict, plain_verdict, says_forged

MADE = Calibration(
    ratio=LikelihoodRatio("pav", (-1.0, 1.2), ((0.0, 0.1), (0.5, 0.5), (1.0, 0.99))),
    false_alarm_rate=0.05,
    miss_rate=0.1,
    forged_above=0.8,
    none_below=0.1,
    thresholds={"0.05": 0.7},
    temperature=2.0,
    map_threshold=0.4,
    corpus="faces of a test",
    counts={"real": 40, "fake": 60, "without_face": 0, "images": 100},
    weights_sha256="ab" * 32,
    tensors_sha256="cd" * 32,
    settings={"INPUT.MIN_SIZE_TEST": 160},
    created="2026-01-31",
    held_out={"ece": 0.03},
)


@pytest.mark.parametrize(
    ("score", "label", "log10_lr"),
    [
        (0.9, "forged", np.log10(0.892 / 0.108)),  # a fifth of the way from .99 back to .5: .892
        (1.0, "forged", 1.2),  # log10(99) is 2: the limit holds
        (0.8, "inconclusive", np.log10(0.794 / 0.206)),  # strictly above
        (0.5, "inconclusive", 0.0),
        (0.1, "inconclusive", np.log10(0.18 / 0.82)),
        (0.05, "no forgery found", np.log10(0.14 / 0.86)),
    ],
)
def test_verdicts(score, label, log10_lr):
    found = MADE.verdict(score)
    assert (found.label, found.log10_lr) == (label, pytest.approx(log10_lr, abs=1e-9))
    assert "faces of a test (60 forged and 40 real images)" in found.reason
    assert says_forged(found.label) == (label == "forged")


def test_reasons_name_the_rates_and_both_propositions():
    assert MADE.verdict(0.9).reason == (
        "scores this high are expected of at most 5 % of real images; the score is 8.3 times as probable if the image "
        "is forged, like the forged images of faces of a test (60 forged and 40 real images), as if it is real, like "
        "the real ones there: weak support for forged"
    )
    assert MADE.verdict(0.05).reason.startswith("scores this low are expected of at most 10 % of forged images; ")
    assert "if the image is real, like the real images of faces of a test" in MADE.verdict(0.05).reason
    assert "16 times as probable" in MADE.verdict(1.0).reason
    assert "at least 16 times" in MADE.verdict(1.0).reason, "the limit of what the corpus supports"
    assert "supports neither" in MADE.verdict(0.5).reason


def test_where_limits_cross_a_score_that_suits_neither_class_is_inconclusive():
    crossed = replace(MADE, forged_above=0.3, none_below=0.6)
    assert [crossed.verdict(score).label for score in (0.2, 0.45, 0.7)] == [
        "no forgery found",
        "inconclusive",
        "forged",
    ]
    assert "rare among both" in crossed.verdict(0.45).reason


def test_a_corpus_too_small_for_a_rate_never_gives_that_verdict():
    small = replace(MADE, forged_above=None, none_below=None)
    assert {small.verdict(score).label for score in (0.0, 0.5, 1.0)} == {"inconclusive"}


def test_words_follow_the_strength():
    said = [in_words(value, (-9, 9), corpus="C").split(": ")[-1] for value in (0.5, 1.5, 2.5, -3.5, 5, 7)]
    assert said == [
        "weak support for forged",
        "moderate support for forged",
        "moderately strong support for forged",
        "strong support for real",
        "very strong support for forged",
        "extremely strong support for forged",
    ]
    assert "3,200 times" in in_words(3.5, (-9, 9), corpus="C")


def test_round_trip_and_fingerprint(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(MADE.to_json(), indent=2))
    again = Calibration.load(path)
    assert again == MADE
    assert again.fingerprint == MADE.fingerprint
    assert replace(MADE, forged_above=0.81).fingerprint != MADE.fingerprint


def test_temperature_halves_the_logit():
    # The odds of .8 are 4; the root of that is 2, and a probability of 2 / 3.
    assert MADE.tempered(0.8)[0] == pytest.approx(2 / 3)


def test_other_weights_or_settings_are_refused():
    right = {"weights_sha256": "ab" * 32, "settings": {"INPUT.MIN_SIZE_TEST": 160}}
    MADE.check_model(**right)
    MADE.check_model(**{**right, "weights_sha256": "00", "tensors_sha256": "cd" * 32})
    with pytest.raises(CalibrationError, match="other weights"):
        MADE.check_model(**{**right, "weights_sha256": "00" * 32})
    with pytest.raises(CalibrationError, match=r"INPUT.MIN_SIZE_TEST 320 \(was 160\)"):
        MADE.check_model(**{**right, "settings": {"INPUT.MIN_SIZE_TEST": 320}})


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"likelihood_ratio": {"method": "pav"}},
        {"likelihood_ratio": {**MADE.ratio.to_json(), "knots": [[0.5, 0.9], [0.6, 0.1]]}},
        {"likelihood_ratio": {**MADE.ratio.to_json(), "limits": [1.0, 2.0]}},
        {"temperature": float("nan")},
        {"forged_above": "high"},
        {"counts": {}},
        {"surplus": 1},
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, change):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**MADE.to_json(), **change}))
    with pytest.raises(CalibrationError, match=r"calibration\.json"):
        Calibration.load(path)


def test_a_file_that_is_not_json(tmp_path):
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.load(tmp_path / "missing.json")


def test_a_plain_threshold_says_that_it_is_uncalibrated():
    said = Verdict("fake", None, "uncalibrated: the score is above the threshold 0.5")
    assert plain_verdict(0.6, 0.5) == said
    assert plain_verdict(0.5, 0.5).label == "real"


def test_settings_are_those_that_scores_depend_on():
    config = {
        "MODEL": {"META_ARCHITECTURE": "ForgeryFPN", "WEIGHTS": "mine.pth"},
        "INPUT": {"MIN_SIZE_TEST": 160, "MAX_SIZE_TEST": 200, "FACE_CROP": {"ENABLED": False, "MARGIN": 0.2}},
        "TEST": {"AUG": {"ENABLED": True, "MIN_SIZES": (128,), "FLIP": True}},
    }
    assert prediction_settings(config) == {
        "MODEL.META_ARCHITECTURE": "ForgeryFPN",
        "INPUT.MIN_SIZE_TEST": 160,
        "INPUT.MAX_SIZE_TEST": 200,
        "INPUT.FACE_CROP.ENABLED": False,
        "TEST.AUG.ENABLED": True,
        "TEST.AUG.MIN_SIZES": [128],
        "TEST.AUG.FLIP": True,
    }
