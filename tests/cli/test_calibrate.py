"""`ddl-d2 calibrate`: a store and its dataset in; a calibration, verdicts, figures and one-line errors out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.cli import calibrate
from ddl_d2.io.image import read_image
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.meta import file_sha256
from tests.fusion.small_stores import write_images, write_store

pytest.importorskip("lir", reason="the extra `calibration` is not installed")
SIZE = (6, 5)


@pytest.fixture
def data(tmp_path, rng) -> Path:
    """Forty fakes and forty reals; the left half of a fake is forged."""
    left = np.zeros(SIZE, bool)
    left[:, :3] = True
    fakes = {f"fake/f{number}.png": left for number in range(40)}
    write_images(tmp_path / "data/valid", {**fakes, **{f"real/r{number}.png": None for number in range(40)}}, SIZE)
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path) -> Path:
    import torch

    path = tmp_path / "mine.safetensors"
    save_tensors(str(path), {"bias": torch.tensor([1.0, 2.0])}, name="mine")
    return path


@pytest.fixture
def store(tmp_path, weights, rng) -> Path:
    """Scores that overlap; maps of 100 where forged and 40 elsewhere, so that the best threshold lies between."""
    scores, maps = {}, {}
    for number in range(40):
        for name, mean in ((f"fake/f{number}.png", 1), (f"real/r{number}.png", -1)):
            scores[name] = float(1 / (1 + np.exp(-rng.normal(mean, 1))))
            maps[name] = np.full(SIZE, 40)
            maps[name][:, :3] = 100 if name.startswith("fake") else 40
    write_store(tmp_path / "store", scores, maps)
    meta = json.loads((tmp_path / "store/meta.json").read_text())
    meta |= {"weights_sha256": file_sha256(weights), "config": "INPUT: {MIN_SIZE_TEST: 64}\n"}
    (tmp_path / "store/meta.json").write_text(json.dumps(meta))
    return tmp_path / "store"


def _run(*words) -> None:
    assert calibrate.main([str(word) for word in words]) == 0


def _fails(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stopped:
        calibrate.main([str(word) for word in words])
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_store_becomes_a_calibration_with_its_check(store, data, weights, tmp_path, capsys):
    figure = tmp_path / "check.png"
    _run(store, "--dataset-root", data, "--split", "valid", "--corpus", "squares", "--figure", figure)
    made = Calibration.load(store / "calibration.json")
    assert made.corpus == "squares"
    assert made.counts == {"real": 40, "fake": 40, "without_face": 0, "images": 80}
    assert made.weights_sha256 == file_sha256(weights)
    assert made.settings == {"INPUT.MIN_SIZE_TEST": 64}
    # Forged pixels have 100 / 255, others 40 / 255: every threshold from 40 to 99 is right; the lowest is taken.
    assert made.map_threshold == pytest.approx(40.5 / 255)
    assert made.held_out["map_f1"] == 1
    assert made.held_out["map_f1_at_half"] == 0
    said = capsys.readouterr().out
    assert "squares (40 forged and 40 real images)" in said
    assert "held out, 5 folds of 80 images:" in said
    assert read_image(figure).shape[1] > read_image(figure).shape[0]


def test_groups_are_held_out_whole(store, data, tmp_path, capsys):
    people = tmp_path / "people.csv"
    lines = [f"{kind}/{kind[0]}{number}.png,person{number // 4}" for kind in ("fake", "real") for number in range(40)]
    people.write_text("\n".join(["image_id,group", *lines]) + "\n")
    _run(store, "--dataset-root", data, "--groups", people, "--output", tmp_path / "made.json", "--method", "logistic")
    assert "held out, 5 folds of 10 groups:" in capsys.readouterr().out
    made = Calibration.load(tmp_path / "made.json")
    assert made.ratio.method == "logistic"
    assert made.counts["groups"] == 10


def test_a_calibration_is_applied_to_a_store(store, data, capsys):
    _run(store, "--dataset-root", data)
    made = Calibration.load(store / "calibration.json")
    capsys.readouterr()
    _run(store, "--use", store / "calibration.json", "--dataset-root", data)
    with open(store / "verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    for row in rows:
        said = made.verdict(float(row["fake_score"]))
        assert (row["verdict"], row["reason"], row["log10_lr"]) == (said.label, said.reason, f"{said.log10_lr:.4f}")
        assert row["calibration"] == made.fingerprint
    assert "errors among the others" in capsys.readouterr().out


def test_weights_carry_their_calibration(store, data, weights, tmp_path):
    carrier = tmp_path / "calibrated.safetensors"
    _run(store, "--dataset-root", data, "--weights", weights, "--attach", carrier)
    metadata = read_metadata(carrier)
    assert metadata["name"] == "mine"
    made = Calibration.from_json(json.loads(metadata["calibration"]), "the metadata")
    assert made == Calibration.load(store / "calibration.json")
    assert made.tensors_sha256 == metadata["sha256"]


def test_other_weights_and_small_sets_are_refused(store, data, tmp_path, capsys):
    import torch

    other = tmp_path / "other.safetensors"
    save_tensors(str(other), {"bias": torch.tensor([3.0])})
    assert "another sha256" in _fails(capsys, store, "--dataset-root", data, "--weights", other)
    _run(store, "--dataset-root", data)
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | {"weights_sha256": "0" * 64}))
    assert "made for other weights" in _fails(capsys, store, "--use", store / "calibration.json")
    assert "--dataset-root is needed" in _fails(capsys, store)
    assert "--attach needs --weights" in _fails(capsys, store, "--attach", "x.safetensors")
    for number in range(25):
        (data / f"valid/real/r{number}.png").unlink()
    assert "needs 20 of each" in _fails(capsys, store, "--dataset-root", data)


def test_images_without_a_face_are_left_out_and_get_no_verdict(store, data, capsys):
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | {"without_face": ["fake/f0.png", "real/r1.png"]}))
    _run(store, "--dataset-root", data)
    assert Calibration.load(store / "calibration.json").counts["without_face"] == 2
    _run(store, "--use", store / "calibration.json")
    with open(store / "verdicts.csv", newline="") as file:
        said = {row["image_id"]: row["verdict"] for row in csv.DictReader(file)}
    assert [said["fake/f0.png"], said["real/r1.png"]] == ["no face found", "no face found"]
    assert list(said.values()).count("no face found") == 2


@pytest.mark.parametrize("config", ["a: [", "words"])
def test_a_store_with_a_damaged_config_is_refused(store, data, config, capsys):
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | {"config": config}))
    with pytest.raises(SystemExit) as stopped:
        calibrate.main([str(store), "--dataset-root", str(data)])
    assert stopped.value.code == 2
    assert "the config in its meta.json" in capsys.readouterr().err
