"""Sets of forged clips on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ddl_d2.data.datasets.load import load_dataset
from ddl_d2.errors import ForgeryError
from ddl_d2.evaluation.leaks import COMPARISONS, leak_lines, leak_table
from ddl_d2.forging import forged_clips
from ddl_d2.forging.forged_clips import ClipSource, ForgedClipsSettings, make_forged_clips
from ddl_d2.io.clip import Clip, read_clip
from ddl_d2.io.write_video import write_clip
from tests.conftest import synthetic_face
from tests.forging.test_voice import talk


def face_finder(image):
    height, width = image.shape[:2]
    return [synthetic_face(center=(width / 2, height / 2), width=0.4 * width)]


def write_sources(folder, count, first=0):
    """Clips of a moving texture with talk in the middle."""
    sources = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        wide = rng.integers(0, 256, (18, 34, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([wide[:, k : k + 192] for k in range(50)])
        audio = np.zeros(32000, np.float32)
        audio[6400:25600] = talk(1.2, seed=number)
        write_clip(folder / f"{number}.mp4", Clip(frames, audio), crf=18)
        sources.append(ClipSource(folder / f"{number}.mp4", f"p_{number}"))
    return sources


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    sources = {"train": write_sources(folder, 2), "valid": write_sources(folder, 1, first=2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forged_clips, "_finder", lambda name, model: face_finder)
        manifest = make_forged_clips(
            folder / "set", sources, ForgedClipsSettings(count=1, size=96), progress=False
        )  # fmt: skip
    return folder / "set", manifest


def test_the_set_is_in_lav_dfs_layout(made):
    root, manifest = made
    assert manifest["clips"] == {"train": 8, "valid": 4}
    assert manifest["left_out"] == {}
    rows, report = load_dataset(root, "train")
    assert not report.problems
    assert sorted(row["is_fake"] for row in rows) == [0, 0, 1, 1, 1, 1, 1, 1]
    by_name = {row["image_id"]: row for row in rows}
    both = by_name["train/p_0_0_both.mp4"]
    assert both["forgery_type"] == "both_modified"
    assert both["video_segments"]
    assert both["audio_segments"]
    assert by_name["train/p_0_0_audio.mp4"]["video_segments"] == []
    assert by_name["train/p_0_0_real.mp4"]["segments"] == []
    for row in rows:
        # Bounds are multiples of 1/25 s, and the clip is trimmed to where somebody speaks: 1.2 s and .05 s around it.
        assert all(abs(25 * edge - round(25 * edge)) < 1e-6 for part in row["segments"] for edge in part)
        assert row["num_frames"] == pytest.approx(32, abs=3)
        clip = read_clip(row["file_name"])
        assert clip.frames.shape == (row["num_frames"], 96, 96, 3)
        assert clip.has_audio


def test_outside_the_spans_the_forged_clip_is_the_real_one_within_the_codecs_noise(made):
    root, _ = made
    entries = {entry["file"]: entry for entry in json.loads((root / "metadata.json").read_text())}
    for entry in entries.values():
        if entry["original"] is None or entry["forgery"]["decoys"] or entries[entry["original"]]["forgery"]["decoys"]:
            continue
        forged, real = read_clip(root / entry["file"]), read_clip(root / entry["original"])
        inside = np.zeros(len(forged.frames), bool)
        for start, end in entry["visual_fake_segments"]:
            inside[round(25 * start) : round(25 * end)] = True
        difference = np.abs(forged.frames.astype(int) - real.frames).mean(axis=(1, 2, 3))
        assert difference[~inside].mean() < 8


def test_what_gives_a_forgery_away_is_measured(made):
    root, _ = made
    table = leak_table(root, json.loads((root / "metadata.json").read_text()))
    assert [row["name"] for row in table][:2] == ["sharpness", "brightness"]
    for row in table:
        assert all(0 <= row[name] <= 1 for name in COMPARISONS)
        assert row["frames"] > 0
        assert row["around"] == pytest.approx(0.5, abs=0.1)
    lines = leak_lines(table)
    assert len(lines) == 8
    assert lines[0].split() == ["statistic", "modality", "inside", "forged", "around"]


def test_a_set_that_leaks_is_told(tmp_path):
    """Forged frames that are brighter: all of them are above all others, which makes the area 1."""
    frames = np.random.default_rng(0).integers(0, 100, (20, 32, 32, 3)).astype(np.uint8)
    forged = frames.copy()
    forged[5:10] += 100
    write_clip(tmp_path / "real.mp4", Clip(frames, talk(0.8)))
    write_clip(tmp_path / "fake.mp4", Clip(forged, talk(0.8)))
    real = {"file": "real.mp4", "original": None, "visual_fake_segments": [], "audio_fake_segments": []}
    fake = {"file": "fake.mp4", "original": "real.mp4", "visual_fake_segments": [[0.2, 0.4]], "audio_fake_segments": []}
    table = {row["name"]: row for row in leak_table(tmp_path, [real, fake])}
    assert table["brightness"]["inside"] == table["brightness"]["forged"] == 1
    assert table["brightness"]["frames"] == 5
    assert np.isnan(table["loudness"]["inside"])  # no sound is forged: nothing to compare


def test_a_folder_of_other_things_is_left_alone(made, tmp_path, monkeypatch):
    root, _ = made
    monkeypatch.setattr(forged_clips, "_finder", lambda name, model: face_finder)
    with pytest.raises(ForgeryError, match="use --overwrite"):
        make_forged_clips(root, {"train": []}, ForgedClipsSettings(), progress=False)
    (tmp_path / "precious.txt").touch()
    for overwrite in (False, True):
        with pytest.raises(ForgeryError):
            make_forged_clips(tmp_path, {"train": []}, ForgedClipsSettings(), overwrite=overwrite, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_what_cannot_be_used_is_left_out_and_says_why(tmp_path, monkeypatch):
    sources = [*write_sources(tmp_path, 2), ClipSource(tmp_path / "none.mp4", "none")]
    faces = {"p_1": []}
    monkeypatch.setattr(forged_clips, "track_face", lambda frames, finder: faces.pop("p_1") if len(faces) else [])
    with pytest.raises(ForgeryError, match="no face is found"):
        make_forged_clips(tmp_path / "set", {"train": sources[:2]}, ForgedClipsSettings(), progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(forged_clips, "_finder", lambda name, model: face_finder)
    manifest = make_forged_clips(
        tmp_path / "set", {"train": sources[1:]}, ForgedClipsSettings(count=1, modalities=("audio",)), overwrite=True,
        progress=False,
    )  # fmt: skip
    assert manifest["left_out"] == {"none": "cannot be read: no such file"}
    assert manifest["clips"]["train"] == 2


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 33}, {"seed": -1}, {"margin": (0.5, 0.1)}])
def test_settings_are_checked(wrong):
    with pytest.raises(ForgeryError):
        ForgedClipsSettings(**wrong)
