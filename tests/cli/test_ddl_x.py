"""`ddl-d2 ddl-x`: answers checked, and scored against a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.cli import ddl_x
from ddl_d2.errors import EvaluationError, SubmissionError
from ddl_d2.evaluation.ddl_x import box_iou, evaluate_answers, validate_answers
from ddl_d2.predictions.ddl_x import DdlXAnswer, write_answer
from tests.fusion.small_stores import write_images

SIZE = (50, 100)
TEXT = "A text that is long enough to be one."


@pytest.fixture
def data(tmp_path) -> Path:
    """Two fakes, forged in pixels 10..29 across and 10..19 down, and two reals."""
    mask = np.zeros(SIZE, bool)
    mask[10:20, 10:30] = True
    images = {"fake/f0.png": mask, "fake/f1.png": mask, "real/r0.png": None, "real/r1.png": None}
    write_images(tmp_path / "data/valid", images, SIZE)
    return tmp_path / "data"


@pytest.fixture
def answers(tmp_path) -> Path:
    """The first fake is right, the second called real; the first real is right, the second called fake."""
    box = ((100, 200, 290, 380),)
    for name, answer in {
        "f0": DdlXAnswer(True, box, TEXT),
        "f1": DdlXAnswer(False, (), TEXT),
        "r0": DdlXAnswer(False, (), TEXT),
        "r1": DdlXAnswer(True, box, "short"),
    }.items():
        write_answer(tmp_path / "answers", f"{name}.png", answer)
    return tmp_path / "answers"


def test_iou_of_boxes_by_hand():
    # 10 x 10 and 10 x 10 cells (corners belong to them), 5 x 10 in common: 50 of 150.
    assert box_iou([(0, 0, 9, 9)], [(5, 0, 14, 9)]) == pytest.approx(1 / 3)
    assert box_iou([(0, 0, 9, 9), (0, 0, 9, 4)], [(0, 0, 9, 9)]) == 1, "what overlaps counts once"
    assert box_iou([], []) == 1
    assert box_iou([(0, 0, 0, 0)], []) == 0


def test_figures_by_hand(data, answers, tmp_path, capsys):
    output = tmp_path / "figures.json"
    words = [answers, "--dataset-root", data, "--split", "valid", "--output", output]
    assert ddl_x.main([str(word) for word in words]) == 1, "one answer has a fault"
    figures = json.loads(output.read_text())
    # IoU 1 and 0. Scores: .2 + .5, 0, .2, 0.
    assert figures == {
        "accuracy": 0.5,
        "box_iou": 0.5,
        "score": pytest.approx((0.7 + 0 + 0.2 + 0) / 4),
        "well_formed": 0.75,
        "flawless": 0.5,
        "num_images": 4,
        "num_fake": 2,
        "num_with_boxes": 2,
    }
    said = capsys.readouterr().out
    assert "r1.json: a text of fewer than 20 characters" in said
    assert "3 of 4 answers are well formed" in said


def test_missing_answers_and_shared_names_are_refused(data, answers):
    rows = [{"image_id": name, "is_fake": 0} for name in ("real/r0.png", "other/r0.png")]
    with pytest.raises(EvaluationError, match=r"share the answer r0\.json"):
        evaluate_answers(answers, rows)
    with pytest.raises(EvaluationError, match="1 of 1 images have no answer: x"):
        evaluate_answers(answers, [{"image_id": "x.png", "is_fake": 0}])
    with pytest.raises(EvaluationError, match="no image has a label"):
        evaluate_answers(answers, [])


def test_validation_names_every_file_with_a_fault(answers, tmp_path):
    (answers / "broken.json").write_text("[]")
    found = validate_answers(answers)
    assert set(found) == {"broken.json", "r1.json"}
    assert "must have the keys" in found["broken.json"][0]
    with pytest.raises(SubmissionError, match=r"holds no \.json file"):
        validate_answers(tmp_path / "nothing")
