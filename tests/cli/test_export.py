"""`ddl-d2 export`: the file predicts as the original does, without torch; what differs or loses too much is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli import export
from ddl_d2.cli.export import judged, main
from ddl_d2.data.datasets import load_config
from ddl_d2.errors import CheckpointError, ConfigError, ExportError
from ddl_d2.export import parity
from ddl_d2.export.onnx_file import export_onnx
from ddl_d2.export.precision import in_precision
from ddl_d2.forging.photos import builtin_photos
from ddl_d2.inference.model import load_model
from ddl_d2.inference.onnx_predictor import OnnxPredictor
from tests.conftest import ROOT, TINY

RECIPE = "release/eyes_lite0"
# Faces, mirrored views, and the smallest encoder that timm has.
OPTS = [*TINY, "MODEL.TIMM.NAME", "test_efficientnet", "TEST.AUG.ENABLED", "True", "INPUT.FACE_CROP.ENABLED", "True"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    cfg = load_config(ROOT / "configs" / f"{RECIPE}.yaml", OPTS)
    model = build_model(cfg)
    for name, parameter in model.named_parameters():
        if name.startswith("image_head"):
            torch.nn.init.normal_(parameter, std=1.0)  # so that images score differently
    path = tmp_path_factory.mktemp("export") / "tiny.safetensors"
    save_tensors(str(path), model.state_dict(), config=cfg.dump(), name="tiny")
    return path


@pytest.fixture(scope="module")
def exported(weights, needs_dlib):
    path = weights.with_suffix(".onnx")
    assert main([str(weights), "--output", str(path)]) == 0
    return path


def test_it_predicts_as_the_original(exported, weights):
    photos = [photo.read() for photo in builtin_photos()]
    images = [*photos, np.zeros((50, 70, 3), np.uint8)]  # without a face
    before, after = load_model(weights, device="cpu"), OnnxPredictor(exported, threads=1)
    for one, other in zip(before.predict_many(images), after.predict_many(images), strict=True):
        assert other.fake_score == pytest.approx(one.fake_score, abs=1e-4)
        np.testing.assert_allclose(other.forgery_map, one.forgery_map, atol=1e-4)
        wanted, got = one.to_dict(), other.to_dict()
        assert got.keys() == wanted.keys()
        assert got["verdict"] == wanted["verdict"]
        assert [face["box"] for face in got["faces"]] == [face["box"] for face in wanted["faces"]]
    assert after.predict(photos[0]).draw().shape[2] == 3


def test_the_file_says_what_it_is(exported, weights):
    about = OnnxPredictor(exported).about
    assert about.meta_architecture == "ForgeryFPN"
    assert about.name == "tiny"
    assert about.faces["finder"]["name"] == "dlib"
    assert about.parity["images"] == 20
    assert 0 <= max(about.parity["score"], about.parity["map"]) <= 1e-4


def test_predicting_needs_no_torch(exported):
    code = (
        "import sys, json; from ddl_d2.inference.onnx_predictor import OnnxPredictor; "
        f"from ddl_d2.forging.photos import builtin_photos; predictor = OnnxPredictor({str(exported)!r}); "
        "result = predictor.predict(builtin_photos()[0].read()).to_dict(); "
        "print(json.dumps([result['score'], [name for name in ('torch', 'detectron2') if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    score, imported = json.loads(done.stdout)
    assert 0 <= score <= 1
    assert imported == []


def test_a_model_that_differs_leaves_no_file(weights, exported, tmp_path, monkeypatch, capsys):
    # The exporter's own result, but for one weight.
    model = onnx.load(exported)
    head = next(one for one in model.graph.initializer if one.name.endswith("image_head.linear.bias"))
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + 0.01, head.name))
    monkeypatch.setattr("ddl_d2.export.onnx_file.export_onnx", lambda cfg, system: model)
    with pytest.raises(SystemExit) as stopped:
        main([str(weights), "--output", str(tmp_path / "new.onnx")])
    assert stopped.value.code == 2
    assert "differs from the original" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "a.pb"], "must end in .onnx"),
        (["--output", "a.onnx", "--precision", "int8"], "needs --labeled"),
        (["--output", "a.onnx", "--opts", "TEST.TILE.SIZE", "64"], "TEST.TILE.SIZE is 64"),
        (["--output", "a.onnx", "--opts", "TEST.AUG.MIN_SIZES", "(64,)"], "TEST.AUG.MIN_SIZES"),
    ],
)
def test_what_cannot_be_exported(weights, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([str(weights), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plain_vit_needs_a_size():
    cfg = load_config(ROOT / "configs" / "ddl_i/iml_vit.yaml", [*TINY, "INPUT.MAX_SIZE_TEST", "500"])
    with pytest.raises(ConfigError, match="Set it to a multiple of 32, 512 for INPUT.MAX_SIZE_TEST 500"):
        export_onnx(cfg, build_model(cfg).eval())


def test_other_files_are_refused(tmp_path, exported):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        OnnxPredictor(tmp_path / "text.onnx")
    model = onnx.load(exported)
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="says nothing of ddl_d2"):
        OnnxPredictor(tmp_path / "other.onnx")


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_lower_precisions_stay_near(exported, tmp_path, precision):
    images = parity.check_images()[4:8]  # 160 × 160
    onnx.save(in_precision(onnx.load(exported), precision), tmp_path / "lower.onnx")
    assert (tmp_path / "lower.onnx").stat().st_size < exported.stat().st_size
    before, after = OnnxPredictor(exported), OnnxPredictor(tmp_path / "lower.onnx")
    allowed = 0.003 if precision == "float16" else 0.05
    for one, other in zip(before.whole(images), after.whole(images), strict=True):
        assert one["fake_score"] == pytest.approx(other["fake_score"], abs=allowed)
        assert 0 < np.abs(one["forgery_map"] - other["forgery_map"]).max() < allowed


def test_a_precision_that_loses_too_much_is_refused():
    kept = judged({"auc": 0.9, "f1": 0.5}, {"auc": 0.896, "f1": 0.55}, "int8")
    assert kept["loss"] == {"auc": pytest.approx(0.004), "f1": pytest.approx(-0.05)}
    with pytest.raises(ExportError, match=r"int8 loses more than 0.005: auc 0.9000 -> 0.8940, f1 0.5000 -> 0.5500"):
        judged({"auc": 0.9, "f1": 0.5}, {"auc": 0.894, "f1": 0.55}, "int8")
    with pytest.raises(ExportError):
        judged({"auc": 0.9}, {"auc": float("nan")}, "int8")


def test_a_lower_precision_is_judged_on_labeled_images(weights, exported, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr("ddl_d2.export.onnx_file.export_onnx", lambda cfg, system: onnx.load(exported))
    monkeypatch.setattr(export, "ALLOWED_LOSS", 1.0)
    path = tmp_path / "half.onnx"
    main([str(weights), "--output", str(path), "--precision", "float16", "--labeled", str(tiny_set / "valid")])
    about = OnnxPredictor(path).about
    assert about.precision == "float16"
    assert about.quality["loss"]["auc"] == pytest.approx(about.quality["before"]["auc"] - about.quality["after"]["auc"])
