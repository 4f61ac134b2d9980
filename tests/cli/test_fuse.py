"""`ddl-d2 fuse`: the three commands by hand, one-line errors, and stores that `ddl-d2 evaluate` takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.cli import evaluate
from ddl_d2.cli import fuse as command
from ddl_d2.predictions.store import PredictionStore
from tests.conftest import ROOT
from tests.fusion.small_stores import write_images, write_store

HALF = np.array([[True, True, False, False]])
NOTHING = np.zeros((1, 4))
FAKE, REAL = "fake/f.png", "real/r.png"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fuse():
    """Run the tool; returns what its `main` returns."""
    return lambda *arguments: command.main([str(argument) for argument in arguments])


@pytest.fixture
def fails(fuse, capsys):
    """Run and expect exit code 2; returns the last line on stderr, of which there is one that is an error."""

    def run(*arguments) -> str:
        with pytest.raises(SystemExit) as stopped:
            fuse(*arguments)
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert sum("error: " in line for line in lines) == 1
        return lines[-1]

    return run


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """Two systems on a fake and a real of 1 x 4 pixels, and what was predicted with which weights."""
    first = write_store(
        tmp_path / "A",
        {FAKE: 0.2, REAL: 0.4},
        {FAKE: [[200, 100, 0, 0]], REAL: NOTHING},
        {FAKE: 1},
        config="A: 1\n",
        threshold=0.4,
    )
    second = write_store(tmp_path / "B", {FAKE: 0.9, REAL: 0.1}, {FAKE: [[100, 200, 60, 0]], REAL: NOTHING}, {REAL: 0})
    return first.root, second.root


def test_average_by_hand(fuse, pair, tmp_path, capsys):
    """1 : 2.5: (.2 + 2.25) / 3.5 = .7, (.4 + .25) / 3.5 = .1857; levels 450 / 3.5 = 128.6, 600 / 3.5 = 171.4, 42.9."""
    assert fuse("average", *pair, "--weights", 1, 2.5, "--output", tmp_path / "F") == 0
    fused = PredictionStore(tmp_path / "F")
    assert fused.ids == [FAKE, REAL]
    assert fused.scores == pytest.approx([0.7, 0.65 / 3.5], abs=1e-15)
    assert fused.labels.tolist() == [1, 0]  # each store knew one of them
    assert fused.read_map(FAKE).tolist() == [[129, 171, 43, 0]]
    assert "F: 2 images from 2 stores" in capsys.readouterr().out
    about = fused.meta["fusion"]
    assert (about["method"], about["weights"], about["map_weights"]) == ("average", [1, 2.5], [1, 2.5])
    assert [row["store"] for row in about["inputs"]] == [str(path) for path in pair]
    assert (about["inputs"][0]["config"], about["inputs"][0]["threshold"]) == ("A: 1\n", 0.4)


def test_the_published_ensemble(fuse, pair, tmp_path):
    """Detection from both, masks from the first, to the last bit."""
    fuse("average", *pair, "--weights", 1, 2.5, "--map-weights", 1, 0, "--output", tmp_path / "F")
    fused, first = PredictionStore(tmp_path / "F"), PredictionStore(pair[0])
    assert fused.scores == pytest.approx([0.7, 0.65 / 3.5], abs=1e-15)
    for image_id in (FAKE, REAL):
        assert (fused.read_map(image_id) == first.read_map(image_id)).all()


def test_equal_weights_are_the_default(fuse, pair, tmp_path):
    fuse("average", *pair, pair[0], "--output", tmp_path / "F")
    fused = PredictionStore(tmp_path / "F")
    assert fused.scores == pytest.approx([1.3 / 3, 0.3], abs=1e-15)
    assert fused.read_map(FAKE).tolist() == [[167, 133, 20, 0]]  # 500 / 3, 400 / 3, 60 / 3


def test_weights_of_the_sources_are_named(fuse, pair, tmp_path):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"abc")
    third = write_store(tmp_path / "C", {FAKE: 0.5, REAL: 0.5}, weights=weights)
    fuse("average", *pair, third.root, "--map-weights", 1, 1, 0, "--output", tmp_path / "F")
    inputs = PredictionStore(tmp_path / "F").meta["fusion"]["inputs"]
    # sha256("abc"), the standard's first example
    assert inputs[2]["weights_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert inputs[0]["weights_sha256"] is None
    # A fused store is a store like any other, and still says what it came from.
    fuse("average", tmp_path / "F", pair[0], "--output", tmp_path / "G")
    assert PredictionStore(tmp_path / "G").meta["fusion"]["inputs"][0]["fusion"]["inputs"] == inputs


def test_mdmf_by_hand(fuse, tmp_path):
    """On 11 x 11, at 0.5: 128 counts and 127 does not.

    Of the first a pixel in the corner grows to 3 x 3; of the second a 5 x 5 block shrinks to its center.
    """
    first, second = np.full((11, 11), 127), np.full((11, 11), 127)
    first[0, 0], second[3:8, 3:8] = 128, 200
    for name, levels, score in (("L", first, 0.25), ("M", second, 0.75)):
        write_store(tmp_path / name, {"x.png": score}, {"x.png": levels})
    common = ("mdmf", tmp_path / "L", tmp_path / "M")

    def run(*options) -> tuple[np.ndarray, float, dict]:
        fuse(*common, *options, "--output", tmp_path / "F", "--overwrite")
        fused = PredictionStore(tmp_path / "F")
        return fused.read_map("x.png"), fused.score("x.png"), fused.meta["fusion"]

    corner, center, block, pixel = (np.zeros((11, 11), np.uint8) for _ in range(4))
    corner[:3, :3], center[5, 5], block[3:8, 3:8], pixel[0, 0] = 255, 255, 255, 255
    levels, score, about = run()
    assert (levels == corner | center).all()
    assert score == 0.25
    settings = {"mode": "paper", "threshold": 0.5, "score": "first", "kernel_size": 5, "iterations": 1}
    assert {key: about[key] for key in settings} == settings
    # Closed, the pixel stays: all of its window that lies in the image is in the 3 x 3.
    assert (run("--mode", "released")[0] == pixel | block).all()
    assert (run("--mode", "or")[0] == pixel | block).all()
    assert not run("--mode", "and")[0].any()
    assert (run("--kernel", 3)[0][4:7, 4:7] == 255).all()
    assert run("--kernel", 3)[0].sum() == 255 * (4 + 9)
    assert run("--kernel", 3, "--iterations", 2)[0].sum() == 255 * (9 + 1)
    assert run("--threshold", 0.75)[0].sum() == 255  # .75 is 191.25: 128 is not above it, 200 is
    assert run("--threshold", 0.4)[0].all()  # .4 is 102: everything is above it
    assert [run("--score", rule)[1] for rule in ("first", "second", "mean", "max")] == [0.25, 0.75, 0.5, 0.75]


def test_maps_of_another_size_are_resized_not_skipped(fuse, tmp_path, capsys):
    first = write_store(tmp_path / "A", {"x.png": 0.1, "y.png": 0.1}, {"x.png": NOTHING, "y.png": NOTHING})
    second = write_store(tmp_path / "B", {"x.png": 0.1, "y.png": 0.1}, {"x.png": NOTHING, "y.png": [[0, 255]]})
    fuse("mdmf", first.root, second.root, "--mode", "or", "--output", tmp_path / "F")
    assert PredictionStore(tmp_path / "F").read_map("y.png").tolist() == [[0, 0, 255, 255]]  # 0, 64, 191, 255 > 127
    assert "note: 1 maps had another size" in capsys.readouterr().err


def test_unlike_lists(fuse, fails, pair, tmp_path, capsys):
    other = write_store(tmp_path / "C", {FAKE: 0.5, "more.png": 0.5}, {FAKE: NOTHING, "more.png": NOTHING})
    error = fails("average", pair[0], other.root, "--output", tmp_path / "F")
    assert f"{pair[0]} has 1 that {other.root} lacks ({REAL})" in error
    assert f"{other.root} has 1 that {pair[0]} lacks (more.png)" in error
    assert not (tmp_path / "F").exists()
    fuse("average", pair[0], other.root, "--intersection", "--output", tmp_path / "F")
    assert PredictionStore(tmp_path / "F").ids == [FAKE]
    assert f"only 1 images are in all stores; left out: 1 of {pair[0]}, 1 of {other.root}" in capsys.readouterr().err


def test_bad_input(fails, pair, tmp_path):
    def out(*arguments) -> str:
        return fails(*arguments, "--output", tmp_path / "F")

    assert "3 weights for 2 systems" in out("average", *pair, "--weights", 1, 2, 3)
    assert "1 weights for 2 systems" in out("average", *pair, "--map-weights", 1)
    assert "all weights are 0" in out("average", *pair, "--weights", 0, 0)
    assert "all weights are 0" in out("average", *pair, "--map-weights", 0, 0)
    assert "at least two prediction stores" in out("average", pair[0])
    assert "no such folder" in out("average", pair[0], tmp_path / "no")
    assert "side of 4: it must be odd" in out("mdmf", *pair, "--kernel", 4)
    assert "side of 0: it must be odd" in out("mdmf", *pair, "--kernel", 0)
    assert "0 iterations" in out("mdmf", *pair, "--iterations", 0)
    assert "do nothing in --mode or" in out("mdmf", *pair, "--mode", "or", "--kernel", 0)
    assert "do nothing in --mode and" in out("mdmf", *pair, "--mode", "and", "--iterations", 2)
    assert "must be in [0, 1)" in out("mdmf", *pair, "--threshold", 1)
    liar = write_store(tmp_path / "C", {FAKE: 0.5, REAL: 0.5}, labels={FAKE: 0})
    assert f"contradict each other, first {FAKE}" in out("average", pair[0], liar.root, "--map-weights", 1, 0)
    assert not (tmp_path / "F").exists()
    assert "in use" in fails("average", *pair, "--output", liar.root)
    assert "one of the stores" in fails("average", *pair, "--output", pair[0], "--overwrite")


def test_stores_without_maps(fuse, fails, pair, tmp_path):
    bare = [write_store(tmp_path / name, {FAKE: 0.5, REAL: 0.3}).root for name in ("C", "D")]
    fuse("average", *bare, "--output", tmp_path / "F")
    assert not PredictionStore(tmp_path / "F").has_maps
    fuse("average", bare[0], pair[0], "--map-weights", 0, 1, "--output", tmp_path / "G")
    assert PredictionStore(tmp_path / "G").has_maps
    error = fails("average", bare[0], pair[0], "--output", tmp_path / "H")
    assert f"no forgery maps in {bare[0]}: give those stores the weight 0 (--map-weights)" in error
    assert "no forgery maps in" in fails("average", *bare, "--map-weights", 1, 0, "--output", tmp_path / "H")
    assert "no forgery maps in" in fails("mdmf", pair[0], bare[0], "--output", tmp_path / "H")


def test_a_broken_map_leaves_the_output_alone(fuse, fails, pair, tmp_path):
    fuse("average", *pair, "--output", tmp_path / "F")
    before = (tmp_path / "F/predictions.csv").read_bytes()
    broken = pair[1] / "maps" / f"{FAKE}.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert f"the forgery map of {FAKE} cannot be read" in fails(
        "average", *pair, "--weights", 1, 9, "--output", tmp_path / "F", "--overwrite"
    )
    assert (tmp_path / "F/predictions.csv").read_bytes() == before
    fuse("average", *pair, "--map-weights", 1, 0, "--output", tmp_path / "G")  # it is not read where it has no weight


def _labeled(folder: Path, seed: int, scores: dict[str, tuple[float, float]]) -> tuple[Path, Path, Path]:
    """A dataset of two fakes and two reals, and two systems that each find one half of the forged pixels."""
    masks = {name: HALF if name.startswith("fake") else None for name in scores}
    root = write_images(folder / "data/valid", masks, (1, 4), seed).parent
    stores = []
    for index, levels in enumerate(([[200, 100, 140, 0]], [[100, 200, 60, 0]])):
        maps = {name: levels if mask is not None else NOTHING for name, mask in masks.items()}
        stores.append(write_store(folder / f"{index}", {name: pair[index] for name, pair in scores.items()}, maps).root)
    return root, *stores


TUNED = {"fake/f.png": (0.9, 0.3), "fake/g.png": (0.3, 0.9), "real/r.png": (0.5, 0.5), "real/s.png": (0.4, 0.4)}
OTHERS = {"fake/f.png": (0.8, 0.1), "fake/g.png": (0.2, 0.9), "real/r.png": (0.3, 0.3), "real/s.png": (0.6, 0.2)}


def test_search_then_average_then_evaluate(fuse, tmp_path, capsys):
    """What the search reports of another set is what tools/evaluate.py says of the average with those weights."""
    tuned, others = _labeled(tmp_path / "t", 1, TUNED), _labeled(tmp_path / "o", 2, OTHERS)
    found = tmp_path / "found.json"
    where = ("--dataset-root", tuned[0], "--report", *others[1:], "--report-root", others[0], "--report-split", "valid")
    assert fuse("search", *tuned[1:], *where, "--step", 0.25, "--output", found) == 0
    out = capsys.readouterr().out
    assert "searched on 4 images, reported on 4 others" in out
    command = f"ddl-d2 fuse average {others[1]} {others[2]} --weights 1 1 --map-weights 1 1 --output ..."
    assert command in out
    content = json.loads(found.read_text())
    assert (content["weights"], content["map_weights"]) == ([1, 1], [1, 1])
    assert [row["auc"] for row in content["tried"]] == [0.5, 0.75, 1, 0.75, 0.5]
    assert content["tried"][2] == {"weights": [1, 1], "auc": 1, "f1": 1, "iou": 1}
    reported = content["report"]
    # The means are .45, .55 against .3, .4: AUC 1. The first system has .8, .2 against .3, .6: two pairs of four.
    assert reported["searched weights"] == {"auc": 1, "f1": 1, "iou": 1, "final": 1}
    assert reported[str(others[1])] == pytest.approx({"auc": 0.5, "f1": 1 / 2, "iou": 1 / 3, "final": (1 + 1 / 3) / 3})

    fuse(*command.split()[2:-1], tmp_path / "F")
    assert evaluate.main(["--predictions", str(tmp_path / "F"), "--dataset-root", str(others[0])]) == 0
    metrics = json.loads((tmp_path / "F/metrics.json").read_text())
    assert {key: metrics[key] for key in ("auc", "f1", "iou", "final")} == reported["searched weights"]


def test_search_refuses(fails, tmp_path):
    tuned, others = _labeled(tmp_path / "t", 1, TUNED), _labeled(tmp_path / "o", 2, OTHERS)
    report = ("--report", *others[1:], "--report-root", others[0])
    data = ("--dataset-root", tuned[0])
    same = fails("search", *tuned[1:], *data, "--report", *tuned[1:])
    assert "4 of the 4 images to report on are among those the weights are searched on (fake/f.png" in same
    assert "as many stores" in fails("search", *tuned[1:], *data, "--report", others[1], "--report-root", others[0])
    assert "1 divided by a whole number" in fails("search", *tuned[1:], *data, *report, "--step", 0.3)
    assert "required: --report" in fails("search", *tuned[1:], *data)
    more = write_store(tmp_path / "more", {**dict.fromkeys(TUNED, 0.5), "x.png": 0.5})
    assert "1 predicted images are not in the dataset: x.png" in fails("search", more.root, more.root, *data, *report)
    found = tmp_path / "found.json"
    nowhere = ("--dataset-root", tmp_path / "no")
    assert "no such file or folder" in fails("search", *tuned[1:], *nowhere, *report, "--output", found)
    assert not found.exists()


def test_search_without_maps(fuse, tmp_path, capsys):
    tuned, others = _labeled(tmp_path / "t", 1, TUNED), _labeled(tmp_path / "o", 2, OTHERS)
    bare = [
        write_store(tmp_path / f"{name}{index}", {image_id: pair[index] for image_id, pair in scores.items()}).root
        for name, scores in (("t", TUNED), ("o", OTHERS))
        for index in range(2)
    ]
    where = ("--dataset-root", tuned[0], "--report", *bare[2:], "--report-root", others[0])
    fuse("search", *bare[:2], *where, "--output", tmp_path / "j")
    captured = capsys.readouterr()
    assert "only the scores' weights are found" in captured.err
    assert "--map-weights" not in captured.out
    content = json.loads((tmp_path / "j").read_text())
    assert content["map_weights"] is None
    assert content["report"]["searched weights"]["f1"] is None


def test_as_a_command(pair, tmp_path):
    """From another folder and without an installation."""
    command = [sys.executable, str(ROOT / "tools/fuse.py"), "average", *map(str, pair), "--output", str(tmp_path / "F")]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(PredictionStore(tmp_path / "F")) == 2
