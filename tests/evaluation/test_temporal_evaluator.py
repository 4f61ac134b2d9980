"""The evaluator of clips: from rows and outputs to metrics, store and metrics.json."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from ddl_d2.errors import EvaluationError, ImageReadError
from ddl_d2.evaluation import ClipMetricOptions, IncompleteEvaluationError, TemporalForgeryEvaluator
from ddl_d2.evaluation.from_store import clip_table_from_store
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter

# In seconds: a clip forged in the picture, one forged in the sound, a real one.
_ROWS = [
    {"image_id": "picture.mp4", "is_fake": 1, "segments": [[1, 2]], "video_segments": [[1, 2]], "audio_segments": []},
    {"image_id": "sound.mp4", "is_fake": 1, "segments": [[0, 1]], "video_segments": [], "audio_segments": [[0, 1]]},
    {"image_id": "real.mp4", "is_fake": 0, "segments": [], "video_segments": [], "audio_segments": []},
]
# The first is found, the second is not.
_OUTPUTS = [
    {"fake_score": 0.9, "segments": torch.tensor([[0.9, 1.0, 2.0]])},
    {"fake_score": 0.4, "segments": torch.tensor([[0.4, 3.0, 4.0]])},
    {"fake_score": 0.5, "segments": torch.tensor([[0.5, 0.0, 1.0]])},
]


def _inputs():
    """Mapper's rows: segments in frames."""
    keys = ("segments", "video_segments", "audio_segments")
    scaled = [{key: torch.tensor(row[key], dtype=torch.float32).reshape(-1, 2) * 25 for key in keys} for row in _ROWS]
    return [row | found | {"fps": 25.0, "frames": torch.zeros(1)} for row, found in zip(_ROWS, scaled, strict=True)]


def _evaluator(tmp_path=None, **others):
    options = ClipMetricOptions(overlaps=[0.5], numbers=[10])
    return TemporalForgeryEvaluator(
        dataset_rows=_ROWS, metric_options=options, distributed=False, output_dir=tmp_path, **others
    )


def test_metrics_by_hand(tmp_path):
    evaluator = _evaluator(tmp_path)
    evaluator.reset()
    for row, output in zip(_inputs(), _OUTPUTS, strict=True):
        evaluator.process([row], [output])
    found = evaluator.evaluate()["ddl"]
    # By confidence: hit, miss (the real clip's), miss: precision 1 up to recall 1/2.
    assert found["AP@0.5"] == pytest.approx(0.5)
    assert found["AR@10"] == pytest.approx(0.5)
    # Without the clip that is forged in sound only all is found; without the one forged in picture only, nothing.
    assert found["visual/AP@0.5"] == pytest.approx(1)
    assert found["audio/AP@0.5"] == 0
    # Of the two pairs of a fake and a real clip one is in order.
    assert found["AUC"] == pytest.approx(0.5)
    # Fakes only: every AP and AR is 1/2; (AUC + 1/2) / 2.
    assert found["DDL-AV"] == pytest.approx(0.5)
    assert (found["num_clips"], found["num_fake"], found["num_real"]) == (3, 2, 1)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["complete"]
    assert written["ap_curve"] == "full"
    assert written["AP@0.5"] == pytest.approx(0.5)


def test_a_store_gives_the_same_metrics(tmp_path):
    store = PredictionStoreWriter(tmp_path / "store", {})
    evaluator = _evaluator(store=store)
    evaluator.reset()
    evaluator.process(_inputs(), _OUTPUTS)
    found = evaluator.evaluate()["ddl"]
    table = clip_table_from_store(PredictionStore(tmp_path / "store"), _ROWS)
    assert table.metrics(ClipMetricOptions(overlaps=[0.5], numbers=[10])) == pytest.approx(found)


def test_real_clips_only():
    evaluator = _evaluator()
    evaluator._rows = _ROWS[2:]
    evaluator.reset()
    evaluator.process(_inputs()[2:], _OUTPUTS[2:])
    with pytest.warns(UserWarning, match="ROC AUC"):
        found = evaluator.evaluate()["ddl"]
    assert "AP@0.5" not in found
    assert math.isnan(found["AUC"])
    assert math.isnan(found["DDL-AV"])


def test_a_clip_that_cannot_be_read_is_told_and_the_others_are_scored(tmp_path):
    evaluator = _evaluator(tmp_path)
    evaluator.reset()
    evaluator.process(_inputs()[:2], _OUTPUTS[:2])
    error = ImageReadError("real.mp4", "cut short")
    evaluator.process([{"image_id": "real.mp4", "file_name": "real.mp4", "unreadable": error}], [{}])
    with pytest.warns(UserWarning, match="ROC AUC"), pytest.raises(IncompleteEvaluationError, match="cut short"):
        evaluator.evaluate()
    assert not json.loads((tmp_path / "metrics.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"fake_score": 0.5}, "gives fake_score and segments"),
        ({"fake_score": 1.5, "segments": np.zeros((0, 3))}, "the fake score is 1.5"),
        ({"fake_score": 0.5, "segments": [[0.5, 2, 1]]}, "start before end"),
        ({"fake_score": 0.5, "segments": [[0.5, 0, 1], [0.6, 0, 1]]}, "falling confidence"),
    ],
)
def test_an_impossible_output_is_told_by_its_clip(output, words):
    evaluator = _evaluator()
    evaluator.reset()
    with pytest.raises(EvaluationError, match=f"picture.mp4.*{words}"):
        evaluator.process(_inputs()[:1], [output])


def test_a_missing_clip_is_an_error():
    evaluator = _evaluator()
    evaluator.reset()
    evaluator.process(_inputs()[:1], _OUTPUTS[:1])
    with pytest.raises(EvaluationError, match="2 of 3 clips of the dataset were not scored"):
        evaluator.evaluate()
