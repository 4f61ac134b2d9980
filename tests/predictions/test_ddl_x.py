"""DDL-X answers: the format to the letter, and what breaks it."""

import json
from pathlib import Path

import pytest

from ddl_d2.errors import SubmissionError
from ddl_d2.predictions.ddl_x import DdlXAnswer, check_stems, make_answer, read_answer, write_answer

TEXT = "The mouth is marked, box (10, 20) to (30, 40)."


def test_boxes_are_on_a_scale_of_1000_with_inclusive_corners():
    # Pixels 20 to 59 of 200 across, 50 to 99 of 100 down: 59 / 200 is 295 thousandths, 99 / 100 is 990.
    answer = make_answer(True, [(20, 50, 60, 100)], height=100, width=200, traces=TEXT)
    assert answer.to_json() == {
        "Bounding boxes": [[100, 500, 295, 990]],
        "Visible forgery traces": TEXT,
        "Classification result": "fake",
    }
    assert make_answer(False, [(20, 50, 60, 100)], height=100, width=200, traces=TEXT).boxes == ()


def test_round_trip(tmp_path):
    answer = DdlXAnswer(True, ((0, 0, 1000, 1000), (5, 5, 5, 5)), TEXT)
    path = write_answer(tmp_path, "images/a.photo.jpg", answer)
    assert path == tmp_path / "a.photo.json"
    assert read_answer(path) == answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Extra": 1}, "and no others"),
        ({"Classification result": "Fake"}, "'real' or 'fake'"),
        ({"Visible forgery traces": None}, "is no text"),
        ({"Bounding boxes": {}}, "is no list"),
        ({"Bounding boxes": [[0, 0, 10]]}, "is no box"),
        ({"Bounding boxes": [[0, 0, 10.0, 10]]}, "is no box"),
        ({"Bounding boxes": [[0, 0, True, 10]]}, "is no box"),
        ({"Bounding boxes": [[0, 0, 10, 1001]]}, "is no box"),
        ({"Bounding boxes": [[20, 0, 10, 10]]}, "is no box"),
    ],
)
def test_what_breaks_the_format(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**DdlXAnswer(True, ((0, 0, 9, 9),), TEXT).to_json(), **change}))
    with pytest.raises(SubmissionError, match=message):
        read_answer(path)


def test_unreadable_files(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "missing.json"):
        with pytest.raises(SubmissionError, match=rf"{name}: cannot be read"):
            read_answer(tmp_path / name)


def test_faults():
    box = ((0, 0, 9, 9),)
    assert DdlXAnswer(True, box, TEXT).faults() == []
    assert DdlXAnswer(False, (), TEXT).faults() == []
    assert DdlXAnswer(True, (), TEXT).faults() == ["fake, but without a box"]
    assert DdlXAnswer(False, box, TEXT).faults() == ["real, but with boxes"]
    assert DdlXAnswer(False, (), " short ").faults() == ["a text of fewer than 20 characters"]


def test_images_that_would_share_an_answer():
    check_stems([Path("a/1.png"), Path("a/2.png")])
    with pytest.raises(SubmissionError, match=r"share the answer 1\.json"):
        check_stems([Path("a/1.png"), Path("b/1.jpg")])
