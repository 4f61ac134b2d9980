"""tools/evaluate.py: numbers by hand, one-line errors, outputs left alone, and the shared error helper."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.cli import evaluate
from ddl_d2.cli.common import cli_errors
from ddl_d2.data.datasets import load_dataset
from ddl_d2.errors import ConfigError, StoreError
from ddl_d2.evaluation import METRIC_NAMES
from ddl_d2.io.image import read_image_size, read_mask, write_png
from ddl_d2.predictions.submission import validate_submission
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.video_files import write_video

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
FLAGS = {
    *("--predictions", "--dataset-root", "--split", "--output", "--threshold", "--empty-score"),
    *("--fake-without-mask", "--intersection", "--submission", "--workers", "--help"),
    *("--video-score", "--frames-per-video", "--compression", "--methods", "--baseline", "--save-baseline"),
    *("--ap", "--ar", "--ap-curve", "--challenge"),
}


@pytest.fixture
def tool():
    return evaluate


@pytest.fixture
def data(tmp_path) -> Path:
    """The golden example of docs/metrics.md in the DDL-I layout: fakes a, b, c and the real r, 4 x 4 pixels."""
    root = tmp_path / "data"
    masks = {name: np.zeros((4, 4), bool) for name in "abc"}
    masks["a"][0:2] = True
    masks["b"][0, 0] = True
    masks["c"][3, 3] = True
    for name in "abcr":
        folder = "real" if name == "r" else "fake"
        write_png(root / "valid" / folder / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    for name, mask in masks.items():
        write_png(root / "valid" / "masks" / f"{name}.png", mask)
    return root


@pytest.fixture
def store(tmp_path) -> Path:
    """Its predictions. The scores .9 .8 .3 of the fakes beat .4 of the real in 2 of 3 pairs."""
    maps = {name: np.full((4, 4), 127, np.uint8) for name in "abcr"}
    maps["a"][0:2, 0:3] = 128
    maps["b"][0, 0:2] = 255
    maps["r"][2, 2] = 200
    with PredictionStoreWriter(tmp_path / "store") as writer:
        for name, score in {"a": 0.9, "b": 0.8, "c": 0.3, "r": 0.4}.items():
            writer.add(f"{'real' if name == 'r' else 'fake'}/{name}.png", score, maps[name])
    return tmp_path / "store"


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _fails(tool, capsys, *arguments) -> str:
    """Run and expect exit code 2 with exactly one line on stderr, which is returned."""
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def _run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOLS / "evaluate.py"), *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=300, check=False)


def test_as_a_command(store, data):
    """From another folder and without an installation: metrics to 1e-6, a table, and a file."""
    done = _run("--predictions", store, "--dataset-root", data, "--split", "valid")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((store / "metrics.json").read_text())
    expected = {
        "auc": 2 / 3,
        "f1": 0.507937,
        "iou": 0.416667,
        "pooled_f1": 0.777778,
        "pooled_iou": 0.636364,
        "miou": 0.769401,
        "all_f1": 0.736842,
        "all_iou": 0.583333,
        "final": (2 / 3 + 0.507937 + 0.416667) / 3,
        "num_images": 4,
        "num_fake": 3,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert set(metrics) == {*METRIC_NAMES, "threshold", "empty_score"}
    assert "0.5079" in done.stdout
    assert str(store / "metrics.json") in done.stdout


def test_bad_input_as_a_command(store, tmp_path):
    done = _run("--predictions", store, "--dataset-root", tmp_path / "absent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'absent'}: no such file or folder\n"


def test_the_command_line_is_frozen(tool):
    flags = {flag for action in tool.build_parser()._actions for flag in action.option_strings}
    assert flags - {"-h"} == FLAGS


def test_workers_and_runs_do_not_change_a_byte(tool, store, data, tmp_path):
    outputs = [tmp_path / f"{number}.json" for number in range(3)]
    for output, workers in zip(outputs, ("1", "1", "4"), strict=True):
        arguments = ["--predictions", store, "--dataset-root", data, "--output", output, "--workers", workers]
        assert tool.main([str(argument) for argument in arguments]) == 0
    assert len({output.read_bytes() for output in outputs}) == 1
    assert not (store / "metrics.json").exists()


def test_threshold_and_empty_score(tool, store, data):
    write_png(data / "valid" / "masks" / "c.png", np.zeros((4, 4), bool))

    def f1(*options: str) -> tuple[float, float]:
        tool.main(["--predictions", str(store), "--dataset-root", str(data), *options])
        metrics = json.loads((store / "metrics.json").read_text())
        return metrics["f1"], metrics["num_empty_masks"]

    # a has F1 12/14 and b 2/3; c, empty and found so, is left out or counts 0 or 1.
    assert f1() == pytest.approx(((12 / 14 + 2 / 3) / 2, 1))
    assert f1("--empty-score", "0") == pytest.approx(((12 / 14 + 2 / 3) / 3, 1))
    assert f1("--empty-score", "1") == pytest.approx(((12 / 14 + 2 / 3 + 1) / 3, 1))
    # Above .6 (153) a finds nothing and b the same as before.
    assert f1("--threshold", "0.6") == pytest.approx((2 / 3 / 2, 1))


def test_a_fake_without_mask(tool, store, data, capsys):
    (data / "valid" / "masks" / "c.png").unlink()
    tool.main(["--predictions", str(store), "--dataset-root", str(data)])
    metrics = json.loads((store / "metrics.json").read_text())
    assert (metrics["num_fake"], metrics["num_localized"], metrics["num_fake_without_mask"]) == (3, 2, 1)
    assert metrics["auc"] == pytest.approx(2 / 3)
    assert "note: 1 fake images without a mask file" in capsys.readouterr().err
    arguments = ("--predictions", store, "--dataset-root", data, "--fake-without-mask", "skip")
    assert "not in the dataset: fake/c.png" in _fails_after_notes(tool, capsys, *arguments)


def _fails_after_notes(tool, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_bad_inputs(tool, store, data, tmp_path, capsys):
    before = _snapshot(store)
    common = ("--predictions", store, "--dataset-root", data)
    write_png(data / "valid" / "real" / "more.png", np.zeros((4, 4, 3), np.uint8))
    assert "1 of 5 images of the dataset were not scored: real/more.png" in _fails(tool, capsys, *common)
    (data / "valid" / "real" / "more.png").unlink()
    assert "test" in _fails(tool, capsys, *common, "--split", "test")
    assert "no such folder" in _fails(tool, capsys, "--predictions", tmp_path / "no", "--dataset-root", data)
    assert "not a complete prediction store" in _fails(tool, capsys, "--predictions", data, "--dataset-root", data)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert str(blocked) in _fails(tool, capsys, *common, "--output", blocked / "metrics.json")
    mask = data / "valid" / "masks" / "a.png"
    mask.write_bytes(b"")
    assert str(mask) in _fails(tool, capsys, *common)
    assert _snapshot(store) == before


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--threshold", "1"],
        ["--workers", "0"],
        ["--empty-score", "2"],
        ["--split", "valid", "--submission", "x.zip"],
    ],
)
def test_bad_arguments(tool, store, options):
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--predictions", str(store), *options])
    assert stopped.value.code == 2


def test_intersection_says_what_it_leaves_out(tool, store, data, capsys):
    (data / "valid" / "fake" / "b.png").unlink()
    (data / "valid" / "masks" / "b.png").unlink()
    write_png(data / "valid" / "real" / "more.png", np.zeros((4, 4, 3), np.uint8))
    assert tool.main(["--predictions", str(store), "--dataset-root", str(data), "--intersection"]) == 0
    captured = capsys.readouterr()
    assert "only 3 images are on both sides: 1 of the dataset's and 1 of the predictions" in captured.err
    assert json.loads((store / "metrics.json").read_text())["num_images"] == 3


def test_submission_without_labels(tool, store, tmp_path, capsys):
    output = tmp_path / "submission.zip"
    assert tool.main(["--predictions", str(store), "--submission", str(output)]) == 0
    submission = validate_submission(output, dict.fromkeys(["a.png", "b.png", "c.png", "r.png"], (4, 4)))
    assert submission.scores["a.png"] == 0.9
    assert not (store / "metrics.json").exists()
    flat = tmp_path / "flat"  # the challenge's test set: images and nothing else
    with PredictionStoreWriter(tmp_path / "flat_store") as writer:
        for name in "ab":
            write_png(flat / f"{name}.png", np.zeros((2, 3, 3), np.uint8))
            writer.add(f"{name}.png", 0.5, np.zeros((2, 3), np.uint8))
    arguments = ["--predictions", str(tmp_path / "flat_store"), "--dataset-root", str(flat)]
    assert tool.main([*arguments, "--submission", str(output)]) == 0
    validate_submission(output, {"a.png": (2, 3), "b.png": (2, 3)})
    assert "no image has a label" in _fails(tool, capsys, *arguments)


def test_submission_and_metrics_together(tool, store, data, tmp_path):
    output = tmp_path / "submission.zip"
    assert tool.main(["--predictions", str(store), "--dataset-root", str(data), "--submission", str(output)]) == 0
    assert output.is_file()
    assert (store / "metrics.json").is_file()


def test_only_user_errors_are_shortened(tool, capsys):
    @cli_errors()
    def fault() -> None:
        raise ValueError("a fault of the program")

    with pytest.raises(ValueError, match="a fault"):
        fault()

    @cli_errors()
    def wrong_key() -> None:
        raise ConfigError("NO.SUCH.KEY is no key")

    with pytest.raises(SystemExit) as stopped:
        wrong_key()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: NO.SUCH.KEY is no key\n"


def test_debugging_shows_the_traceback(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_DEBUG", "1")
    with pytest.raises(StoreError):
        tool.main(["--predictions", str(tmp_path / "absent"), "--submission", str(tmp_path / "out.zip")])


def test_oracle_predictions_on_real_photographs(tool, shared, tmp_path):
    """Forgery masks handed in as predictions are perfect, on real files of many sizes."""
    root = shared / "data" / "casia_faces"
    rows, _ = load_dataset(root, "valid")
    with PredictionStoreWriter(tmp_path / "store") as writer:
        for row in rows:
            size = read_image_size(row["file_name"])
            mask = read_mask(row["mask_file_name"]) if row["is_fake"] else np.zeros(size, bool)
            writer.add(row["image_id"], float(row["is_fake"]), mask.astype(np.uint8) * 255, label=row["is_fake"])
    arguments = ["--predictions", str(tmp_path / "store"), "--dataset-root", str(root), "--split", "valid"]
    assert tool.main(arguments) == 0
    metrics = json.loads((tmp_path / "store" / "metrics.json").read_text())
    for key in ("auc", "f1", "iou", "final", "pooled_f1", "pooled_iou", "miou", "all_f1", "all_iou"):
        assert metrics[key] == 1.0, key
    assert metrics["num_images"] == len(rows)


def test_frames_of_videos(tool, tmp_path, capsys):
    """Two frames of each of four videos: the frames' means are .3 and .6 for the reals, .5 and .9 for the fakes."""
    scores = {"r0.mp4": (0.1, 0.5), "r1.mp4": (0.6, 0.6), "f0.mp4": (0.2, 0.8), "f1.mp4": (0.9, 0.9)}
    labels = {}
    with PredictionStoreWriter(tmp_path / "store") as writer:
        for name, pair in scores.items():
            write_video(tmp_path / "data" / name, 4)
            labels[name] = {"label": "REAL" if name[0] == "r" else "FAKE"}
            for frame, score in zip((1, 3), pair, strict=True):
                writer.add(f"{name}/{frame:06d}", score)
    (tmp_path / "data/metadata.json").write_text(json.dumps(labels))
    common = ["--predictions", str(tmp_path / "store"), "--dataset-root", str(tmp_path / "data")]
    for rule, auc in (("mean", 0.75), ("max", 1.0)):
        assert tool.main([*common, "--frames-per-video", "2", "--video-score", rule]) == 0
        metrics = json.loads((tmp_path / "store/metrics.json").read_text())
        assert metrics["video_auc"] == auc
        assert (metrics["num_videos"], metrics["num_images"], metrics["video_score"]) == (4, 8, rule)
    assert "ROC AUC, all videos" in capsys.readouterr().out
    assert "4 of 4 images of the dataset were not scored" in _fails(tool, capsys, *common, "--frames-per-video", "1")


def test_methods_of_faceforensics(tool, tmp_path, capsys):
    """A store of one method's videos is refused among all methods, and measured where --methods names it."""
    data = tmp_path / "data"
    real, fake = "original_sequences/youtube/c23/videos/0.mp4", "manipulated_sequences/{}/c23/videos/0_1.mp4"
    for name in (real, fake.format("Deepfakes"), fake.format("FaceSwap")):
        write_video(data / name, 4)
    with PredictionStoreWriter(tmp_path / "store") as writer:
        for name, score in ((real, 0.4), (fake.format("Deepfakes"), 0.7)):
            writer.add(f"{name}/000002", score)
    common = ["--predictions", str(tmp_path / "store"), "--dataset-root", str(data), "--frames-per-video", "1"]
    assert "1 of 3 images of the dataset were not scored" in _fails(tool, capsys, *common)
    assert tool.main([*common, "--methods", "Deepfakes"]) == 0
    metrics = json.loads((tmp_path / "store/metrics.json").read_text())
    assert metrics["video_auc_Deepfakes"] == metrics["video_auc"] == 1.0
    assert metrics["num_fake_Deepfakes"] == metrics["num_fake"] == 1
    assert "ROC AUC, Deepfakes against all real videos" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tool.main([*common, "--methods", "DeepFakes"])
    assert "NeuralTextures" in capsys.readouterr().err


def test_methods_are_faceforensics_alone(tool, data, store, capsys):
    error = _fails(tool, capsys, "--predictions", store, "--dataset-root", data, "--methods", "FaceSwap")
    assert "--methods are FaceForensics++'s" in error


def test_a_baseline_derives_its_own_metrics_again(tool, store, data, tmp_path, capsys):
    """The golden example without its images: the same figures, and no name of a file."""
    path = tmp_path / "golden.json"
    common = ["--dataset-root", str(data), "--split", "valid"]
    assert tool.main(["--predictions", str(store), *common, "--save-baseline", str(path)]) == 0
    assert "fake/a" not in path.read_text()
    capsys.readouterr()
    assert tool.main(["--baseline", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line == ["golden", "3", "+", "1", "0.6667", "0.5079", "0.4167", "0.7500", "as", "published"]
    path.write_text(path.read_text().replace("0.9,", "0.1,", 1))
    assert tool.main(["--baseline", str(path)]) == 1
    captured = capsys.readouterr()
    assert "golden: auc is 0.3333333333333333, published was 0.6666666666666666" in captured.err
    assert captured.out.splitlines()[-1].endswith("unlike")


def test_what_is_no_baseline(tool, tmp_path, capsys):
    assert "absent: no such file, and no baseline of that name" in _fails(tool, capsys, "--baseline", "absent")
    (tmp_path / "x.json").write_text('{"format": "other", "columns": []}')
    assert "not a baseline of this version" in _fails(tool, capsys, "--baseline", tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    assert "not a baseline (TypeError" in _fails(tool, capsys, "--baseline", tmp_path / "x.json")
