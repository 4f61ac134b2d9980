"""The submission files of challenges on clips."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from ddl_d2.errors import SubmissionError
from ddl_d2.predictions.clip_submission import export_clip_submission, read_clip_submission
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter

_FOUND = np.array([[0.93456, 1.0, 2.5], [0.25, 0.0, 0.48]])


def _store(folder, names=("test/000001.mp4", "test/000002.mp4")):
    with PredictionStoreWriter(folder, {}) as writer:
        for name in names:
            writer.add(name, 0.99312, segments=_FOUND)
    return PredictionStore(folder)


def test_the_files_as_the_rules_want_them(tmp_path):
    assert export_clip_submission(_store(tmp_path / "store"), tmp_path / "out.zip") == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == ["prediction.json", "prediction.txt"]
        assert archive.read("prediction.txt").decode() == "000001.mp4,0.9931\n000002.mp4,0.9931\n"
        content = json.loads(archive.read("prediction.json"))
    assert content["000001.mp4"] == [[0.9346, 1.0, 2.5], [0.25, 0.0, 0.48]]
    assert read_clip_submission(tmp_path / "out.zip")["000002.mp4"] == (0.9931, content["000002.mp4"])


def test_av_deepfake1m_has_a_semicolon(tmp_path):
    export_clip_submission(_store(tmp_path / "store"), tmp_path / "out.zip", challenge="av_deepfake1m", max_segments=1)
    found = read_clip_submission(tmp_path / "out.zip", challenge="av_deepfake1m")
    assert found["000001.mp4"] == (0.9931, [[0.9346, 1.0, 2.5]])


def test_two_clips_of_one_name_are_refused(tmp_path):
    with pytest.raises(SubmissionError, match=r"would share 1\.mp4"):
        export_clip_submission(_store(tmp_path / "store", ("a/1.mp4", "b/1.mp4")), tmp_path / "out.zip")


def test_a_store_of_images_is_refused(tmp_path):
    with PredictionStoreWriter(tmp_path / "store", {}) as writer:
        writer.add("a.png", 0.5)
    with pytest.raises(SubmissionError, match="segments of every clip"):
        export_clip_submission(PredictionStore(tmp_path / "store"), tmp_path / "out.zip")


@pytest.mark.parametrize(
    ("lines", "segments", "words"),
    [
        ("a.mp4;0.5\n", {"a.mp4": []}, "line 1 is not"),
        ("a.mp4,1.5\n", {"a.mp4": []}, "line 1 is not"),
        ("a.mp4,0.5\na.mp4,0.5\n", {"a.mp4": []}, "line 2 repeats"),
        ("a.mp4,0.5\n", {}, "name different clips"),
        ("a.mp4,0.5\n", {"a.mp4": [[0.5, 2, 1]]}, "no segment"),
        ("a.mp4,0.5\n", {"a.mp4": [[0.5, 0, 1], [0.6, 0, 1]]}, "out of order"),
        ("a.mp4,0.5\n", {"a.mp4": [[0.5, 0]]}, "is not"),
        ("a.mp4,0.5\n", {"a.mp4": [[0.5, "x", 1]]}, "is not"),
        ("a.mp4,0.5\n", {"a.mp4": {}}, "a list of segments"),
    ],
)
def test_a_spoiled_submission_is_told(tmp_path, lines, segments, words):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("prediction.txt", lines)
        archive.writestr("prediction.json", json.dumps(segments))
    with pytest.raises(SubmissionError, match=words):
        read_clip_submission(tmp_path / "out.zip")


def test_a_missing_file_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("prediction.txt", "")
    with pytest.raises(SubmissionError, match=r"prediction\.json is missing"):
        read_clip_submission(tmp_path / "out.zip")
