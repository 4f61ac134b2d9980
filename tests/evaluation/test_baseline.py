"""The baselines that ship: whole, small, nameless, and as published."""

from __future__ import annotations

import re

import pytest

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.baseline import baseline_text, list_baselines, load_baseline
from ddl_d2.evaluation.results import ImageResult
from tests.conftest import ROOT

FOLDER = ROOT / "ddl_d2/evaluation/baselines"


@pytest.mark.parametrize("name", list_baselines())
def test_a_shipped_baseline_is_as_published(name):
    baseline = load_baseline(name)
    metrics = baseline.table.metrics(threshold=baseline.about["threshold"])
    assert baseline.differences(metrics) == {}
    assert {"auc", "num_fake", "num_real"} <= baseline.published.keys()
    assert len(baseline.about["weights_sha256"]) == 64


def test_all_of_them_are_small_and_name_no_file():
    files = sorted(FOLDER.glob("*.json"))
    assert files
    assert sum(path.stat().st_size for path in files) < 2e6
    for path in files:
        assert not re.search(r"\.(jpg|jpeg|png|mp4)|/", path.read_text().split('"rows"')[1]), path


def test_the_row_of_the_model_card():
    """weights/MODEL_CARD.md: DFDC face swaps, valid: 302 + 302, AUC 0.708, F1 of the map 0.719."""
    card = (ROOT / "weights/MODEL_CARD.md").read_text(encoding="utf-8")
    published = load_baseline("eyes_lite0_dfdc_valid").published
    assert f"| DFDC face swaps, valid | {published['num_fake']} + {published['num_real']} |" in card
    (row,) = [line for line in card.splitlines() if line.startswith("| DFDC face swaps, valid |")]
    assert f"{published['auc']:.3f} [" in row
    assert f"{published['f1']:.3f} [" in row


def test_frames_are_no_baseline():
    row = ImageResult("a", 1, 0.5, None, False, 4, 4, video_id="v")
    with pytest.raises(EvaluationError, match="no frames of videos"):
        baseline_text([row], {})
