import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.inference.video import VideoWriter
from ddl_d2.io.image import read_image, write_png
from ddl_d2.io.video import iter_video_frames
from tests.video_files import write_sound, write_video

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "demo.py"
CONFIG = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
SMALL = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]


def run(*arguments: object) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)


def assert_one_line_error(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line]
    assert errors[-1].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[-1]


def error_of(tool, capsys, *words: object) -> str:
    """The one line that a call in this process ends with."""
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(word) for word in words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


@pytest.fixture(scope="module")
def opts(tmp_path_factory):
    """An untrained model, much reduced: the `--opts` that load it."""
    from tests.conftest import TINY, load_config

    words = [*TINY, *SMALL]
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": build_model(load_config(CONFIG, words)).state_dict()}, path)
    return [*words, "MODEL.WEIGHTS", str(path)]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import demo

    return demo


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_folder_glob_and_a_broken_image(tmp_path, opts):
    write_png(tmp_path / "in/a.png", noise(50, 70))
    write_png(tmp_path / "in/sub/a.png", noise(90, 40, 1))
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8 not much of an image")
    write_png(tmp_path / "other.png", noise(64, 64, 2))
    out = tmp_path / "out"
    done = run(
        "--config-file", CONFIG, "--input", tmp_path / "in", tmp_path / "oth*.png", "--output", out,
        "--confidence-threshold", "0.3", "--opts", *opts,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr
    assert "1 of 4 files could not be read" in done.stderr
    summary = json.loads((out / "predictions.json").read_text())
    assert [Path(row["file"]).name for row in summary["predictions"]] == ["a.png", "a.png", "other.png"]
    assert [Path(row["file"]).name for row in summary["failed"]] == ["broken.jpg"]
    assert len(summary["model"]["weights_sha256"]) == 64
    names = {path.name for path in out.iterdir()}
    assert {"other.png", "other.json", "in__a.png", "sub__a.json", "predictions.json"} <= names
    for row in summary["predictions"]:
        assert 0 <= row["score"] <= 1
        assert 0 <= row["forged_share"] <= 1
        assert row["threshold"] == 0.3
        assert row["verdict"] == ("fake" if row["score"] > 0.3 else "real")
        assert read_image(out / row["overlay"]).shape[2] == 3
    first = json.loads((out / "in__a.json").read_text())
    assert (first["height"], first["width"]) == (50, 70)


def test_video(tmp_path, opts):
    with VideoWriter(tmp_path / "clip.mp4") as writer:
        for i in range(4):
            writer.write(noise(48, 64, i), i / 25)
    done = run(
        "--config-file", CONFIG, "--video-input", tmp_path / "clip.mp4", "--output", tmp_path / "o", "--opts", *opts
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o/clip.json").read_text())
    assert [row["frame"] for row in report["frames"]] == [0, 1, 2, 3]
    assert report["frame_count"] == 4
    assert len(list(iter_video_frames(tmp_path / "o/clip.mp4"))) == 4
    assert read_image(tmp_path / "o/clip.png").shape == (430, 1000, 3)


def test_some_frames_of_a_video(tmp_path, opts, tool):
    write_video(tmp_path / "clip.mp4", 8)
    words = ["--video-input", tmp_path / "clip.mp4", "--output", tmp_path / "o", "--frames", 2]
    assert (
        tool.main([str(w) for w in ("--config-file", CONFIG, *words, "--opts", *opts, "TEST.VIDEO_SCORE", "max")]) == 0
    )
    report = json.loads((tmp_path / "o/clip.json").read_text())
    assert [row["frame"] for row in report["frames"]] == [2, 6]
    assert report["score"] == report["highest_score"] == max(row["score"] for row in report["frames"])
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["clip.json", "clip.png"]


def test_bad_videos_leave_nothing(tmp_path, opts, tool, capsys):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(b"no video at all")
    write_sound(tmp_path / "sound.mp4")
    for name, more in (("empty", []), ("noise", ["--frames", "3"]), ("sound", [])):
        words = ["--video-input", tmp_path / f"{name}.mp4", "--output", tmp_path / "a/b", *more]
        error = error_of(tool, capsys, "--config-file", CONFIG, *words, "--opts", *opts)
        assert f"{name}.mp4" in error
        assert not (tmp_path / "a").exists()


def test_heat_maps(tmp_path, opts, tool, capsys):
    write_png(tmp_path / "in/a.png", noise(50, 70))
    words = ["--config-file", CONFIG, "--input", tmp_path / "in", "--output", tmp_path / "o", "--heat-map"]
    assert tool.main([str(word) for word in (*words, "--opts", *opts)]) == 0
    assert read_image(tmp_path / "o/a.heat_map.png").shape[2] == 3
    assert json.loads((tmp_path / "o/a.json").read_text())["heat_map"] == "a.heat_map.png"
    write_png(tmp_path / "in/a.heat_map.png", noise(50, 70))
    assert "a.heat_map.png: the heat map would replace" in error_of(tool, capsys, *words, "--opts", *opts)


@pytest.mark.parametrize(
    "words", [["--input", "a.png", "--frames", "3"], ["--video-input", "a.mp4", "--heat-map"]], ids=lambda w: w[-1]
)
def test_options_that_do_not_fit(tool, words):
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--config-file", str(CONFIG), *words, "--output", "o"])
    assert stopped.value.code == 2


def test_bad_input_is_one_line_and_harms_nothing(tmp_path, opts, tool, capsys):
    write_png(tmp_path / "a.png", noise(40, 40))
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.json").write_text("earlier")

    def words(config=CONFIG, image="a.png", last=()):
        source = ["--input", tmp_path / image, "--output", tmp_path / "out"]
        return [str(word) for word in ("--config-file", config, *source, "--opts", *opts, *last)]

    assert_one_line_error(run(*words(image="broken.png")), "broken.png")
    assert_one_line_error(run(*words(last=("MODEL.NO_SUCH_KEY", "1"))), "NO_SUCH_KEY")
    for bad, name in (
        (words(image="none.png"), "none.png"),
        (words(config=tmp_path / "none.yaml"), "none.yaml"),
        (words(last=("MODEL.WEIGHTS", tmp_path / "bad.pth")), "bad.pth"),
        (words(last=("MODEL.WEIGHTS", "")), "MODEL.WEIGHTS is empty"),
        (words(last=("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "9")), "query"),
    ):
        assert name in error_of(tool, capsys, *bad)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.json"]
    assert (tmp_path / "out/a.json").read_text() == "earlier"
