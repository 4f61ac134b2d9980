"""The timeline of a clip, by a small model of chance."""

import csv
import json

import pytest

from ddl_d2.cli import timeline
from ddl_d2.report import clip_timeline
from tests.video_files import write_video


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", 26)


@pytest.fixture
def run(tiny_weights, capsys):
    def call(*words, seed=0):
        weights = str(tiny_weights / f"{seed}.safetensors")
        try:
            code = timeline.main([*map(str, words), "--weights", weights, "--device", "cpu"])
        except SystemExit as stopped:
            code = stopped.code
        return code, capsys.readouterr()

    return call


def test_a_clip_has_a_timeline(run, clip, tmp_path):
    out = tmp_path / "out"
    code, said = run(clip, "--output", out, "--per-second", "5", "--threshold", "0.01")
    assert code == 0
    found = json.loads((out / "timeline.json").read_text())
    # 26 frames are one second; five a second and the last make six.
    assert (found["frames"], found["verdict"], found["without_face"]) == (6, "fake", 0)
    (face,) = found["faces"]  # a model of whole frames has one
    assert (face["sightings"], face["from"], face["to"]) == (6, 0.08, found["seconds"])
    assert face["segments"] == [[face["from"], face["to"]]]
    with open(out / "sightings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [
        json.loads(line)["score"] for line in (out / "frames.jsonl").read_text().splitlines()[1:]
    ]
    assert max(float(row["score"]) for row in rows) == face["highest"]["score"]
    page = (out / "timeline.html").read_text()
    assert "Face 1 at" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "face 1: mean" in said.out


def test_a_second_call_goes_on(run, clip, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run(clip, "--output", out)[0] == 0
    whole = (out / "frames.jsonl").read_bytes()
    first = (out / "timeline.json").read_bytes()
    lines = whole.splitlines(keepends=True)
    (out / "frames.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])  # what a kill leaves
    looked, original = [], clip_timeline.seen
    monkeypatch.setattr(clip_timeline, "seen", lambda *a: looked.append(a[1]) or original(*a))
    assert run(clip, "--output", out)[0] == 0
    assert looked == [json.loads(line)["frame"] for line in lines[3:]]
    assert (out / "timeline.json").read_bytes() == first
    assert (out / "frames.jsonl").read_bytes() == whole


def test_results_of_another_model_or_rate_are_not_mixed(run, clip, tmp_path):
    out = tmp_path / "out"
    assert run(clip, "--output", out)[0] == 0
    for words, seed in (((), 1), (("--per-second", "3"), 0)):
        code, said = run(clip, "--output", out, *words, seed=seed)
        assert (code, "--overwrite" in said.err) == (2, True)
    assert run(clip, "--output", out, "--overwrite", seed=1)[0] == 0


def test_what_is_no_clip_is_refused(run, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    code, said = run(tmp_path / "a.mp4", "--output", tmp_path / "out")
    assert (code, "a.mp4" in said.err) == (2, True)
