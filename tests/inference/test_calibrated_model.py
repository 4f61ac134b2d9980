"""A calibrated model: which calibration is used, and what every output then says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.checkpoint.shipped import digest
from ddl_d2.cli import demo, predict
from ddl_d2.errors import CalibrationError, InputError
from ddl_d2.inference.calibrated_weights import attach_calibration, tensors_digest
from ddl_d2.io.image import read_image, write_png
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.predictions.settings import prediction_settings
from tests.conftest import ROOT, TINY
from tests.predictions.test_calibration import MADE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained, much reduced model whose file carries its config."""
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    cfg = ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_tensors(str(path), build_model(cfg).state_dict(), config=cfg.dump(), name="tiny")
    return path


@pytest.fixture(scope="module")
def made(weights):
    """A calibration of these weights that calls every score forged."""
    cfg = ddl_d2.load_model(weights, device="cpu").cfg
    bound = {
        "weights_sha256": file_sha256(weights),
        "tensors_sha256": tensors_digest(weights),
        "settings": prediction_settings(cfg),
    }
    return replace(MADE, forged_above=-1.0, none_below=-1.0, map_threshold=0.25, **bound)


@pytest.fixture
def file(made, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(made.to_json()))
    return path


@pytest.fixture
def photo(tmp_path, rng):
    path = tmp_path / "photo.png"
    write_png(path, rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return path


def test_an_operating_point_by_its_rate_of_false_alarms(weights, made, file, photo):
    model = ddl_d2.load_model(weights, device="cpu", calibration=file)
    point = model.at_false_alarms(0.05)
    assert (point.threshold, point.calibration) == (made.thresholds["0.05"], None)
    assert point.predict(photo).verdict in ("fake", "real")
    with pytest.raises(InputError, match=r"no threshold for a rate of 0\.2 \(it has 0\.05\)"):
        model.at_false_alarms(0.2)
    with pytest.raises(InputError, match="needs a calibration"):
        point.at_false_alarms(0.05)


def test_a_calibration_file_decides(weights, made, file, photo):
    plain = ddl_d2.load_model(weights, device="cpu").predict(photo)
    assert plain.reason.startswith("uncalibrated: ")
    assert (plain.log10_lr, plain.to_dict()["calibration"]) == (None, None)
    model = ddl_d2.load_model(weights, device="cpu", calibration=file)
    found = model.predict(photo)
    said = made.verdict(plain.fake_score)
    assert (found.verdict, found.log10_lr, found.reason) == (said.label, said.log10_lr, said.reason)
    assert found.verdict == "forged"
    row = found.to_dict()
    assert (row["verdict"], row["log10_lr"], row["calibration"]) == ("forged", said.log10_lr, made.fingerprint)
    assert row["map_threshold"] == 0.25
    assert row["forged_share"] == (plain.forgery_map > 0.25).mean()
    assert model.describe()["calibration"] == made.fingerprint
    assert found.draw().ndim == 3


def test_weights_bring_their_calibration_wherever_they_are_copied(weights, made, photo, tmp_path):
    carrier = tmp_path / "elsewhere.safetensors"
    attach_calibration(weights, made, carrier)
    model = ddl_d2.load_model(carrier, device="cpu")
    assert model.calibration == made
    assert model.note == ""
    assert model.predict(photo).verdict == "forged"
    assert model.about == "tiny", "what the file said before is still there"


def test_a_plain_threshold_sets_the_calibration_aside(weights, made, photo, tmp_path):
    carrier = tmp_path / "elsewhere.safetensors"
    attach_calibration(weights, made, carrier)
    model = ddl_d2.load_model(carrier, device="cpu", threshold=1.0)
    assert model.calibration is None
    assert model.predict(photo).verdict == "real"
    with pytest.raises(InputError, match="one of them"):
        ddl_d2.load_model(carrier, device="cpu", threshold=0.5, calibration=tmp_path / "any.json")


def test_other_settings_refuse_a_file_and_set_a_carried_calibration_aside_aloud(weights, made, file, photo, tmp_path):
    opts = ["INPUT.MAX_SIZE_TEST", "128"]
    with pytest.raises(CalibrationError, match=r"INPUT.MAX_SIZE_TEST 128 \(was 96\)"):
        ddl_d2.load_model(weights, device="cpu", calibration=file, opts=opts)
    carrier = tmp_path / "elsewhere.safetensors"
    attach_calibration(weights, made, carrier)
    model = ddl_d2.load_model(carrier, device="cpu", opts=opts)
    assert model.calibration is None
    assert "INPUT.MAX_SIZE_TEST 128" in model.note
    assert model.predict(photo).reason.startswith("uncalibrated: ")


def test_other_weights_are_refused(weights, made, file, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(replace(made, weights_sha256="0" * 64, tensors_sha256="").to_json()))
    with pytest.raises(CalibrationError, match="other weights"):
        ddl_d2.load_model(weights, device="cpu", calibration=path)
    with pytest.raises(CalibrationError, match="of other weights"):
        attach_calibration(weights, replace(made, tensors_sha256="0" * 64), tmp_path / "new.safetensors")
    with pytest.raises(CalibrationError, match="name another"):
        attach_calibration(weights, made, weights)


def test_a_damaged_calibration_in_weights_is_refused(weights, tmp_path):
    path = tmp_path / "damaged.safetensors"
    tensors = {"a": torch.zeros(1)}
    save_tensors(str(path), tensors, sha256=digest(tensors), calibration="{", config="")
    from ddl_d2.inference.calibrated_weights import calibration_for

    with pytest.raises(CalibrationError, match=r"damaged\.safetensors"):
        calibration_for(path, {})


def test_the_command_says_what_decided(weights, made, file, photo, tmp_path, capsys):
    arguments = [str(photo), "--weights", str(weights), "--device", "cpu"]
    assert predict.main([*arguments, "--calibration", str(file)]) == 0
    said = capsys.readouterr()
    assert "log10 LR" in said.out
    assert "forged" in said.out
    assert "calibrated on faces of a test (60 forged and 40 real images)" in said.err
    assert predict.main(arguments) == 0
    assert "(uncalibrated: the threshold is 0.5)" in capsys.readouterr().err


def test_the_demo_decides_by_it_too(weights, made, file, photo, tmp_path):
    output = tmp_path / "out"
    words = ["--input", photo, "--output", output, "--calibration", file, "--opts", "MODEL.WEIGHTS", weights]
    assert demo.main([str(word) for word in words]) == 0
    row = json.loads((output / "photo.json").read_text())
    assert (row["verdict"], row["calibration"]) == ("forged", made.fingerprint)
    assert read_image(output / "photo.png").ndim == 3


def test_the_command_explains_and_says_how_far_views_differ(weights, made, file, photo, tmp_path, capsys):
    pytest.importorskip("dlib")
    output, answers = tmp_path / "out", tmp_path / "answers"
    words = [photo, "--weights", weights, "--device", "cpu", "--output", output, "--uncertainty", "--explain"]
    words += ["--calibration", file, "--ddl-x", answers]
    assert predict.main([str(word) for word in words]) == 0
    assert "over views: score ±" in capsys.readouterr().out
    row = json.loads((output / "results.jsonl").read_text().splitlines()[1])
    assert set(row["uncertainty"]) == {"score_spread", "forged_reliability"}
    assert row["reliability_map"] == "photo.reliability_map.png"
    assert read_image(output / "photo.reliability_map.png").shape[:2] == (60, 80)
    assert row["explanation"]["faces"] == [], "noise holds no face"
    assert "Outside the faces: 100 %" in row["explanation"]["text"] or row["forged_share"] == 0
    assert json.loads((answers / "photo.json").read_text())["Visible forgery traces"]
