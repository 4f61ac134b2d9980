"""Predicting videos: which frames, in how much memory, and the curve."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pytest
import torch

from ddl_d2.errors import ImageReadError
from ddl_d2.inference.overlay import FORGED, GREEN
from ddl_d2.inference.timeline import draw_timeline
from ddl_d2.inference.video import VideoPrediction, annotate_video, predict_video
from ddl_d2.io.image import read_image
from ddl_d2.io.video import iter_video_frames
from tests.video_files import gray_of, write_video


def predictor(image):
    """A score that tells the frame: frame 2 of `write_video` scores 0.02."""
    return {
        "fake_score": float(np.clip((image.mean() - gray_of(0)) / 800, 0, 1)),
        "forgery_map": torch.zeros(image.shape[:2]),
    }


def test_evenly_spaced_frames_and_rules(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 20)
    for rule, score in (("mean", 0.1), ("max", 0.175), ("top_frames", 0.175)):
        head = annotate_video(
            clip, predictor, tmp_path / "o/r.json", curve=tmp_path / "o/r.png", frames=4, video_score=rule
        )
        report = json.loads((tmp_path / "o/r.json").read_text())
        # Four parts of five frames: 2, 7, 12, 17, which score .02, .07, .12, .17.
        assert [row["frame"] for row in report["frames"]] == [2, 7, 12, 17]
        assert [row["seconds"] for row in report["frames"]] == [0.08, 0.28, 0.48, 0.68]
        assert head["score"] == pytest.approx(score, abs=0.01)
        assert head["video_score"] == rule
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["r.json", "r.png"]
    assert read_image(tmp_path / "o/r.png").shape == (430, 1000, 3)  # with frames and a bar; the clip is silent


def without_face(*numbers):
    """The predictor, which finds no face in the frames with these numbers."""

    def predict(image):
        number = round((float(image.mean()) - gray_of(0)) / 8)
        return predictor(image) | {"has_face": number not in numbers}

    return predict


def test_frames_without_a_face_are_left_out_of_the_score(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 20)
    # Frames 2, 7, 12, 17 score .02, .07, .12, .17.
    head = annotate_video(clip, without_face(2, 12), tmp_path / "r.json", curve=tmp_path / "r.png", frames=4)
    assert head["score"] == pytest.approx(0.12, abs=0.01)
    assert head["frame_count"] == 4
    assert head["note"] == "no face was found in 2 of the 4 frames, which are left out of the score"
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["frame"] for row in report["frames"] if row.get("face") is False] == [2, 12]
    result = predict_video(clip, without_face(2, 12), frames=4)
    assert (result.score, result.without_face) == (pytest.approx(0.12, abs=0.01), (2, 12))
    said = result.to_dict()
    assert said["note"] == head["note"] == result.note
    assert [row["frame"] for row in said["frames"] if "face" in row] == [2, 12]
    assert len(said["frames"]) == len(result.frames) == 4
    assert result.draw().shape[1:] == (1000, 3)


def test_a_video_without_a_face_scores_one_half(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 20)
    none = without_face(*range(20))
    said = "no face was found in any of the 4 frames: the score 0.5 says nothing"
    head = annotate_video(clip, none, tmp_path / "r.json", frames=4, video_score="max")
    assert (head["score"], head["verdict"], head["note"]) == (0.5, "no face found", said)
    result = predict_video(clip, none, frames=4)
    assert (result.score, result.verdict, result.note) == (0.5, "no face found", said)
    assert result.draw().shape[1:] == (1000, 3)


def test_the_curve_passes_over_frames_without_a_face():
    """A frame that is left out of the score must not bend the line: here it would lift it above the threshold."""
    lifted, flat = draw_timeline([0, 1, 2], [0.1, 0.9, 0.1]), draw_timeline([0, 1, 2], [0.1, np.nan, 0.1])
    assert (lifted == FORGED).all(-1).any()
    assert not (flat == FORGED).all(-1).any()
    frames = ((0, 0.0, 0.1), (1, 1.0, 0.9), (2, 2.0, 0.1))
    video = VideoPrediction("", 0.1, "real", 0.5, "mean", frames, without_face=(1,))
    assert not (video.draw() == FORGED).all(-1).any()


def test_without_face_crops_nothing_is_said_of_faces(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 20)
    assert "note" not in annotate_video(clip, predictor, tmp_path / "r.json", frames=2)
    said = predict_video(clip, predictor, frames=2).to_dict()
    assert set(said) == {"file", "score", "verdict", "reason", "threshold", "video_score", "frames"}
    assert all(set(row) == {"frame", "seconds", "score"} for row in said["frames"])


@pytest.mark.parametrize("frames", [0, 20])
def test_few_frames_are_alive_however_long_the_video(tmp_path, frames):
    alive, highest = weakref.WeakSet(), 0

    class Held:
        pass

    def counting(image):
        nonlocal highest
        held = Held()
        weakref.finalize(image, lambda h=held: None)  # `held` lives as long as the frame
        alive.add(held)
        highest = max(highest, len(alive))
        return predictor(image)

    clip = write_video(tmp_path / "clip.mp4", 30)
    annotate_video(clip, counting, tmp_path / "r.json", video=tmp_path / "v.mp4", frames=frames)
    assert highest <= 2
    assert len(list(iter_video_frames(tmp_path / "v.mp4"))) == (frames or 30)


def test_damage_in_the_middle_leaves_nothing(tmp_path):
    def fails(image):
        if image.mean() > gray_of(5):
            raise ImageReadError("clip.mp4", "damaged")
        return predictor(image)

    clip = write_video(tmp_path / "clip.mp4", 10)
    with pytest.raises(ImageReadError):
        annotate_video(clip, fails, tmp_path / "a/b/r.json", video=tmp_path / "a/b/v.mp4", curve=tmp_path / "a/b/r.png")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def count(figure, color):
    return int((figure == np.array(color)).all(axis=2).sum())


def test_curve():
    times = np.arange(50) / 25
    low, high = draw_timeline(times, np.full(50, 0.2)), draw_timeline(times, np.full(50, 0.8))
    assert count(low, GREEN) > 500
    assert count(low, FORGED) == 0
    assert count(high, FORGED) > 500
    rows = np.flatnonzero((high == np.array(FORGED)).all(axis=2).any(axis=1))
    below = np.flatnonzero((low == np.array(GREEN)).all(axis=2).any(axis=1))
    assert rows.max() < below.min()  # 0.8 is drawn above 0.2
    both = draw_timeline(times, np.linspace(0, 1, 50))
    assert abs(count(both, GREEN) - count(both, FORGED)) < 0.2 * count(both, GREEN)


def test_curves_of_odd_lengths():
    assert count(draw_timeline([3.0], [0.9], title="one"), FORGED) > 10
    long = draw_timeline(np.arange(100_000) / 25, np.random.default_rng(0).random(100_000))
    assert long.shape == (300, 1000, 3)
    with pytest.raises(ValueError, match="not 0 for 0"):
        draw_timeline([], [])
    with pytest.raises(ValueError, match="not 1 for 2"):
        draw_timeline([0.0], [0.1, 0.2])
