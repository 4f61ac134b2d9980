"""`ddl-d2 predict`: what it prints, what it writes, that it goes on where it ended, and its exit codes."""

import json
import os

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli import predict
from ddl_d2.inference.model import Model
from ddl_d2.io.image import read_image, write_png
from tests.conftest import ROOT, TINY
from tests.video_files import write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    cfg = ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])
    folder = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_tensors(str(folder / f"{seed}.safetensors"), build_model(cfg).state_dict(), config=cfg.dump())
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them in a subfolder, beside a file that is none."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "sub/b.png"):
        write_png(tmp_path / "in" / name, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    (tmp_path / "in" / "c.jpg").write_bytes(b"no image")
    return tmp_path / "in"


@pytest.fixture
def run(weights, capsys):
    """Run the command on the CPU with the weights of a seed; returns (exit code, stdout, stderr)."""

    def call(*arguments: object, seed: int = 0) -> tuple[int, str, str]:
        words = ["--weights", str(weights / f"{seed}.safetensors"), "--device", "cpu", *map(str, arguments)]
        try:
            code = predict.main(words)
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_table(run, folder):
    code, out, err = run(folder / "a.png", "--threshold", "0")
    assert code == 0
    score, verdict, share, forged, file = out.split()
    assert 0 < float(score) <= 1
    assert (verdict, forged, file) == ("fake", "forged", str(folder / "a.png"))
    assert 0 <= float(share.removesuffix("%")) <= 100
    assert "1 files:" in err
    # The map says where a fake is forged; it does not contradict the verdict of a real image.
    assert run(folder / "a.png", "--threshold", "1")[1].split() == [score, "real", str(folder / "a.png")]


def test_some_unreadable_images_are_exit_code_1(run, folder):
    code, out, err = run(folder)
    assert code == 1
    assert len(out.splitlines()) == 2
    assert f"error: {folder / 'c.jpg'}: " in err
    assert "3 files: " in err
    assert "1 failed" in err


def test_nothing_readable_is_exit_code_2(run, folder):
    assert run(folder / "c.jpg")[0] == 2
    code, _, err = run(folder / "absent.png")
    assert code == 2
    assert "absent.png: no such file" in err


def test_json_and_json_lines_say_the_same(run, folder):
    rows = json.loads(run(folder, "--json")[1])
    lines = [json.loads(line) for line in run(folder, "--jsonl")[1].splitlines()]
    assert rows == lines
    assert [row["file"] for row in rows] == [str(folder / name) for name in ("a.png", "c.jpg", "sub/b.png")]
    assert set(rows[1]) == {"file", "error"}


def test_a_second_call_goes_on(run, folder, tmp_path, monkeypatch):
    output = tmp_path / "out"
    code, first, _ = run(folder, "--output", output)
    assert code == 1
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "b.png", "results.jsonl"]
    assert read_image(output / "a.png").shape[1] > 3 * 50
    # What a kill leaves: the last line cut off.
    text = (output / "results.jsonl").read_text()
    (output / "results.jsonl").write_text(text[: text.rindex("\n", 0, len(text) - 1) + 20])
    predicted = []
    original = Model.predict_many
    monkeypatch.setattr(
        Model, "predict_many", lambda self, paths, **k: original(self, predicted.extend(paths) or paths, **k)
    )
    code, second, _ = run(folder, "--output", output)
    assert code == 1
    assert predicted == [folder / "c.jpg", folder / "sub/b.png"]  # what failed is tried again
    assert second == first
    # A file that has changed is predicted again.
    os.utime(folder / "a.png", ns=(1, 1))
    predicted.clear()
    run(folder, "--output", output)
    assert predicted == [folder / "a.png", folder / "c.jpg"]


def test_results_of_other_weights_are_not_mixed(run, folder, tmp_path):
    output = tmp_path / "out"
    run(folder, "--output", output)
    before = (output / "results.jsonl").read_text()
    code, _, err = run(folder, "--output", output, seed=1)
    assert code == 2
    assert "--overwrite" in err
    assert (output / "results.jsonl").read_text() == before
    assert run(folder, "--output", output, "--overwrite", seed=1)[0] == 1
    assert (output / "results.jsonl").read_text() != before


@pytest.mark.parametrize("change", [("--opts", "TEST.MAP_THRESHOLD", "0.7"), ("--frames", "3"), ("--threshold", "0.4")])
def test_results_of_other_settings_are_not_mixed(run, folder, tmp_path, change):
    output = tmp_path / "out"
    run(folder, "--output", output)
    before = (output / "results.jsonl").read_text()
    code, _, err = run(folder, "--output", output, *change)
    assert (code, "another model, config or threshold" in err) == (2, True)
    assert (output / "results.jsonl").read_text() == before


def test_a_file_that_has_changed_has_one_result(run, folder, tmp_path):
    output = tmp_path / "out"
    run(folder, "--output", output)
    write_png(folder / "a.png", np.zeros((20, 30, 3), np.uint8))
    run(folder, "--output", output)
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()[1:]]
    (row,) = (row for row in rows if row["file"].endswith("a.png"))
    assert (row["height"], row["width"]) == (20, 30)


def test_own_overlays_are_not_predicted(run, folder):
    output = folder / "out"
    run(folder, "--output", output)
    _, out, _ = run(folder, "--output", output)
    assert len(out.splitlines()) == 2


def test_files_are_told_apart_by_content(run, tmp_path):
    rng = np.random.default_rng(0)
    write_png(tmp_path / "in/a.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    (tmp_path / "in/a.png").rename(tmp_path / "in/a.jfif")
    (tmp_path / "in/b.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (tmp_path / "in/notes.txt").write_text("not an image")
    write_video(tmp_path / "in/clip.mp4", 3)
    code, out, err = run(tmp_path / "in", "--frames", 2)
    assert code == 1
    assert [line.split()[-1] for line in out.splitlines()] == [str(tmp_path / "in" / n) for n in ("a.jfif", "clip.mp4")]
    assert " 2 frames " in out
    assert "b.HEIC: " in err
    assert "1 files are neither images nor videos and were passed over: notes.txt" in err


def test_bad_names_are_no_hindrance(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("n" * 250 + ".png", "line\nfeed.png", "z.png"):
        write_png(tmp_path / "x.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "x.png").rename(tmp_path / "in" / name)
    code, out, _ = run(tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0
    assert len(out.splitlines()) == 3
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_a_model_of_faces_says_that_it_found_none(run, folder, tmp_path):
    faces = ["--opts", "INPUT.FACE_CROP.ENABLED", "True", "INPUT.FACES.CACHE", tmp_path / "faces"]
    code, out, err = run(folder / "a.png", "--output", tmp_path / "out", *faces)
    assert code == 0
    assert out.split() == ["-", "no", "face", "found", str(folder / "a.png")]
    assert "1 files: 0 fake, 0 real, 1 no face found, 0 failed" in err
    (row,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines()[-1:])
    assert (row["score"], row["verdict"]) == (None, "no face found")
    assert (row["forged_share"], row["regions"], row["faces"]) == (None, [], [])


def test_without_weights_those_that_ship_are_used_and_named(astronaut, tmp_path, capsys):
    write_png(tmp_path / "photo.png", astronaut)
    code = predict.main([str(tmp_path / "photo.png"), "--device", "cpu"])
    captured = capsys.readouterr()
    assert code == 0
    assert "weights: eyes_lite0: " in captured.err
    assert captured.out.split()[1] == "real"


def test_fragility_is_printed_and_kept(run, folder, tmp_path):
    code, out, err = run(folder / "a.png", "--fragility", "--threshold", "0", "--output", tmp_path / "out")
    assert code == 0
    first, reason = out.splitlines()
    assert first.endswith("a.png")
    assert reason.strip().startswith('"fake" holds under 12 deliveries; the weakest is ')
    (row,) = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()[1:]]
    assert len(row["fragility"]["deliveries"]) == 12
    code, _, err = run(folder / "a.png", "--threshold", "0", "--output", tmp_path / "out")
    assert code == 2
    assert "--overwrite" in err
