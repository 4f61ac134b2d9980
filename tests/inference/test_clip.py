"""Clips predicted: forged seconds in words, as JSON, on a timeline, and in an annotated video with sound."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli import demo, predict
from ddl_d2.data.clip_mapper import ClipMapper
from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.clip import ClipPredictor, annotate_clip, predict_clip
from ddl_d2.inference.clip_prediction import NO_SOUND, ForgedSegment, forged_segments
from ddl_d2.inference.overlay import FORGED
from ddl_d2.inference.timeline import TRUTH, Bars, Scene, Thumbnails, draw_timeline, runs_above
from ddl_d2.io.clip import Clip, read_clip
from ddl_d2.io.image import read_image, write_png
from ddl_d2.io.write_video import write_clip
from tests.clip_files import tone, write_talk
from tests.data.datasets.test_clip_sets import entry, write_labels
from tests.modeling.meta_arch.batfd_cases import clip_model


class LoudnessModel(nn.Module):
    """Calls the seconds forged that are loud; the score of a frame rises with its brightness, up to 0.3."""

    def forward(self, rows):
        return [self._one(row) for row in rows]

    def _one(self, row):
        frames, t = row["frames"].float() / 255, row["num_frames"]
        scores = {"video": 0.3 * frames.mean((0, 2, 3))}
        if row["has_audio"]:
            scores["audio"] = (row["audio"].reshape(t, -1).abs().amax(1) > 0.3).float() * 0.9
        loud = torch.nonzero(scores["audio"] > 0.5)[:, 0] if row["has_audio"] else torch.zeros(0)
        segments = [[0.8, float(loud[0]) / 25, float(loud[-1] + 1) / 25], [0.3, 0.0, 1.2]] if len(loud) else []
        return {
            "fake_score": 0.8 if len(loud) else 0.1,
            "segments": np.array(segments).reshape(-1, 3),
            "frame_scores": scores,
        }


@pytest.fixture
def predictor():
    return ClipPredictor(LoudnessModel(), ClipMapper(False, size=48))


@pytest.fixture
def clip(tmp_path):
    """1.2 s of gray, loud from .4 s on."""
    sound = tone(1.2, 16000, start=0.4)[None]
    return write_talk(tmp_path / "clip.mp4", frames=30, size=(96, 128), sound=sound, sound_rate=16000)


def count(image, color):
    return int((image == np.array(color)).all(axis=2).sum())


def test_what_is_said_of_a_clip(predictor, clip):
    result = predict_clip(clip, predictor)
    assert (result.verdict, result.score, result.duration) == ("fake", 0.8, 1.2)
    (segment,) = result.forged
    assert segment.start == pytest.approx(0.4, abs=0.05)
    assert segment.end == pytest.approx(1.2, abs=0.05)
    assert segment.where == "sound"
    assert result.words.startswith("forged: 0.")
    assert result.words.endswith("s (sound)")
    row = json.loads(json.dumps(result.to_dict()))
    assert row["verdict"] == "fake"
    assert row["segments"][1] == [0.3, 0.0, 1.2]
    assert len(row["frame_scores"]["video"]) == len(row["frame_scores"]["audio"]) == 30
    assert "note" not in row


def test_a_clip_without_sound_says_so(predictor, tmp_path):
    result = predict_clip(write_talk(tmp_path / "mute.mp4", frames=10), predictor)
    assert result.verdict == "real"
    assert result.words == ""
    assert result.to_dict()["note"] == NO_SOUND
    assert set(result.frame_scores) == {"video"}
    assert result.draw().shape[1:] == (1000, 3)


def test_told_segments_do_not_overlap():
    segments = np.array([[0.9, 1.0, 2.0], [0.8, 1.5, 2.5], [0.7, 2.0, 3.0], [0.4, 4.0, 5.0]])
    scores = {"video": np.repeat([0.1, 0.9], 50), "audio": np.repeat([0.1, 0.1, 0.9, 0.9], 25)}
    told = forged_segments(segments, scores, fps=25.0, threshold=0.5)
    # .8 overlaps .9, .4 is not sure enough. In 1-2 s nothing scores; in 2-3 s both do.
    assert told == (ForgedSegment(1.0, 2.0, 0.9, ""), ForgedSegment(2.0, 3.0, 0.7, "picture and sound"))
    assert str(told[1]) == "2.00-3.00 s (picture and sound)"


def test_many_segments_are_counted_and_not_listed(predictor, clip):
    result = predict_clip(clip, predictor)
    many = tuple(ForgedSegment(k, k + 0.5, 0.9, "sound") for k in range(8))
    words = replace(result, forged=many).words
    assert words.startswith("forged: 0.00-0.50 s (sound), 1.00-")
    assert words.endswith("4.00-4.50 s (sound) and 3 more")
    assert len(replace(result, forged=many).to_dict()["forged"]) == 8


def test_the_annotated_video_has_sound_and_a_red_frame_while_something_is_forged(predictor, clip, tmp_path):
    truth = {"video": [], "audio": [[0.4, 1.2]]}
    head = annotate_clip(
        clip, predictor, tmp_path / "o/c.json", video=tmp_path / "o/c.mp4", curve=tmp_path / "o/c.png", truth=truth,
        about={"model": "m"},
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["c.json", "c.mp4", "c.png"]
    made, given = read_clip(tmp_path / "o/c.mp4"), read_clip(clip)
    assert made.frames.shape == given.frames.shape
    assert made.has_audio
    assert np.corrcoef(made.audio, given.audio)[0, 1] > 0.98
    red = (made.frames[..., 0].astype(int) - made.frames[..., 1])[:, -2:, :].mean(axis=(1, 2)) > 60
    assert not red[:9].any()
    assert red[12:28].all()
    report = json.loads((tmp_path / "o/c.json").read_text())
    assert report["model"] == head["model"] == "m"
    assert report["truth"] == {"video": [], "audio": [[0.4, 1.2]]}
    assert len(report["segments"]) == 2
    assert "segments" not in head
    drawing = read_image(tmp_path / "o/c.png")
    assert count(drawing, TRUTH) > 5000


def test_a_clip_that_cannot_be_read_leaves_nothing(predictor, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    with pytest.raises(ImageReadError):
        annotate_clip(tmp_path / "bad.mp4", predictor, tmp_path / "o/c.json", video=tmp_path / "o/c.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_runs_of_frames_above_the_threshold():
    times = np.arange(6) / 5
    found = runs_above(times, [0.1, 0.9, 0.7, 0.2, np.nan, 0.6], 0.5)
    np.testing.assert_allclose(found, [[0.8, 0.2, 0.6], [0.6, 1.0, 1.2]])
    assert runs_above(times, np.zeros(6), 0.5).shape == (0, 3)
    assert runs_above([0.0], [0.9], 0.5).tolist() == [[0.9, 0.0, 0.0]]


def test_thumbnails_of_a_video_of_any_length():
    for total in (1, 12, 24, 25, 1000):
        thumbnails = Thumbnails(most=12)
        for number in range(total):
            thumbnails.add(float(number), np.zeros((192, 96, 3), np.uint8))
        times = [seconds for seconds, _ in thumbnails.kept]
        assert min(total, 12) <= len(times) <= 24
        assert len(set(np.diff(times))) <= 1
        assert thumbnails.kept[0][1].shape == (96, 48, 3)


def test_a_bar_is_drawn_where_its_segment_is_and_the_surer_the_stronger():
    bars = [Bars("forged", np.array([[1.0, 2.0, 4.0], [0.0, 6.0, 8.0]]))]
    plain = draw_timeline([0, 10], [0.1, 0.1])
    drawn = draw_timeline([0, 10], [0.1, 0.1], scene=Scene(10.0), bars=bars)
    assert drawn.shape[0] == plain.shape[0] + 28
    rows, columns = np.nonzero((drawn == np.array(FORGED)).all(axis=2))
    # The track begins at pixel 55 and is 925 wide: 2 s are at 240, 4 s at 425.
    assert abs(columns.min() - 240) <= 2
    assert abs(columns.max() - 425) <= 2
    assert rows.max() - rows.min() == pytest.approx(21, abs=2)
    faint = drawn[(rows.min() + rows.max()) // 2, 55 + 92 * 7]
    assert 40 < faint[0] < 120


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small clip model as it is initialized, with its config."""
    model = clip_model()
    path = tmp_path_factory.mktemp("weights") / "clips.safetensors"
    from tests.modeling.meta_arch.batfd_cases import TINY_CLIP

    cfg = ddl_d2.load_config("lav_df/batfd_plus", TINY_CLIP)
    save_tensors(str(path), model.state_dict(), config=cfg.dump())
    return path


def test_a_clip_system_is_loaded_as_any_other(weights, clip):
    model = ddl_d2.load_model(weights, device="cpu")
    result = model.predict_video(clip)
    assert 0 <= result.score <= 1
    assert result.segments.shape[1] == 3
    assert len(result.frame_scores["video"]) == 30
    with pytest.raises(InputError, match="sees clips with sound, not images"):
        model.predict(np.zeros((32, 32, 3), np.uint8))


def test_predict_tells_the_seconds(weights, clip, tmp_path, capsys):
    words = ["--weights", str(weights), "--device", "cpu", "--threshold", "0", "--output", str(tmp_path / "o")]
    assert predict.main([str(clip), *words]) == 0
    out = capsys.readouterr().out
    assert "fake" in out
    assert "forged: " in out
    row = json.loads((tmp_path / "o/results.jsonl").read_text().splitlines()[1])
    assert row["forged"]
    assert read_image(tmp_path / "o" / row["overlay"]).shape[1] == 1000
    # A second call goes on where the first ended.
    assert predict.main([str(clip), *words]) == 0
    write_png(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(SystemExit):
        predict.main([str(tmp_path / "a.png"), *words[:4]])
    assert "is an image, but BATFD sees clips" in capsys.readouterr().err


def test_demo_draws_the_truth(weights, clip, tmp_path, capsys):
    write_labels(tmp_path / "labels.json", [entry("x/clip.mp4", [[0.4, 1.2]], audio=True)])
    arguments = ["--video-input", str(clip), "--output", str(tmp_path / "o"), "--truth", str(tmp_path / "labels.json")]
    assert demo.main([*arguments, "--opts", "MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu"]) == 0
    assert "1 of 1 files" in capsys.readouterr().out
    assert read_clip(tmp_path / "o/clip.mp4").has_audio
    assert json.loads((tmp_path / "o/clip.json").read_text())["truth"]["audio"] == [[0.4, 1.2]]
    assert count(read_image(tmp_path / "o/clip.png"), TRUTH) > 5000


def test_the_timeline_of_an_image_system_shows_frames_and_sound(tmp_path):
    """And its annotated video keeps the sound."""
    from ddl_d2.inference.video import annotate_video, predict_video

    frames = np.full((20, 64, 64, 3), 60, np.uint8)
    frames[10:] = 220
    write_clip(tmp_path / "a.mp4", Clip(frames, tone(0.8, 16000)))

    def bright(image):
        score = float(image.mean() > 100)
        return {"fake_score": score, "forgery_map": np.full(image.shape[:2], score, np.float32)}

    result = predict_video(tmp_path / "a.mp4", bright, frames=0)
    assert result.scene.sound.shape[0] == 64
    drawn = result.draw()
    assert drawn.shape[0] == 300 + 102 + 96 + 28
    rows, columns = np.nonzero((drawn[-64:-42] == np.array(FORGED)).all(axis=2))
    assert len(rows)
    assert columns.min() == pytest.approx(55 + 925 / 2, abs=20)  # AAC makes the sound .03 s longer
    annotate_video(tmp_path / "a.mp4", bright, tmp_path / "r.json", video=tmp_path / "v.mp4", curve=tmp_path / "r.png")
    assert read_clip(tmp_path / "v.mp4").has_audio
