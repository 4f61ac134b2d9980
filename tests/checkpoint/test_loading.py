"""Weights carry the config that they were trained with."""

import pickle
import re

import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.loading import config_of_weights, load_weights
from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.config.load import config_from_text
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import CheckpointError


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 3)


@pytest.fixture
def text(tiny_cfg):
    return tiny_cfg("TEST.MAP_THRESHOLD", "0.375").dump()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_saved_file_says_its_config_and_still_loads(tmp_path, text, suffix):
    checkpointer = Checkpointer(_model(), str(tmp_path), config=text)
    checkpointer.save("model_final", iteration=3)
    checkpointer.save_weights("model_final", iteration=3)
    path = tmp_path / f"model_final{suffix}"
    cfg = config_of_weights(path)
    assert cfg.TEST.MAP_THRESHOLD == 0.375
    assert cfg == config_from_text(text)
    assert not cfg.is_frozen()
    copy = _model()
    nn.init.zeros_(copy.weight)
    load_weights(copy, path)
    assert torch.equal(copy.weight, _model().weight)


def test_what_the_trainer_saves_says_its_config(tiny_cfg, tiny_set, tmp_path):
    cfg = tiny_cfg(
        "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.MAX_ITER", "1", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]",
        "INPUT.MIN_SIZE_TEST", "64", "TEST.EVAL_PERIOD", "1",
    )  # fmt: skip
    ForgeryTrainer(cfg).train()
    for name in ("model_final.pth", "model_final.safetensors", "model_best.pth", "model_best.safetensors"):
        assert config_of_weights(tmp_path / name) == config_from_text(cfg.dump()), name


def test_an_export_that_a_crash_prevented_has_the_config_of_its_checkpoint(tmp_path, text):
    Checkpointer(_model(), str(tmp_path), config=text).save("model_best", iteration=4)
    Checkpointer(_model(), str(tmp_path)).save("model_4", iteration=4)
    Checkpointer(_model(), str(tmp_path), config="another").resume_or_load("", resume=True)
    metadata = read_metadata(tmp_path / "model_best.safetensors")
    assert metadata == {"format": "pt", "iteration": "4", "config": text}


def test_a_checkpoints_own_entry_is_kept(tmp_path):
    Checkpointer(_model(), str(tmp_path), config="of the run").save("model_0", iteration=0, config="of the caller")
    assert torch.load(tmp_path / "model_0.pth", weights_only=True)["config"] == "of the caller"


@pytest.mark.parametrize("form", [".safetensors", ".pth", "old.pth", ".pkl", "someone's.pth"])
def test_files_without_a_config(tmp_path, form):
    path, weights = tmp_path / f"w{form}", _model().state_dict()
    if form == ".safetensors":
        save_tensors(str(path), weights)
    elif form == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in weights.items()}}))
    else:
        other = {"config": {"lr": 0.1}} if form == "someone's.pth" else {}  # not the text of a config
        torch.save({"model": weights, **other}, path, _use_new_zipfile_serialization=form != "old.pth")
    assert config_of_weights(path) is None


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        ("A: [1", "its config cannot be read"),
        ("just words", "its config cannot be read"),
        ("NO_SUCH_KEY: 1", "NO_SUCH_KEY"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []", "its config cannot be read"),
    ],
)
def test_a_damaged_config_names_the_file(tmp_path, suffix, damaged, problem):
    checkpointer = Checkpointer(_model(), str(tmp_path), config=damaged)
    checkpointer.save("w")
    checkpointer.save_weights("w", iteration=0)
    with pytest.raises(CheckpointError, match=problem) as caught:
        config_of_weights(tmp_path / f"w{suffix}")
    assert str(tmp_path / f"w{suffix}") in str(caught.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pkl", "gone.safetensors", "gone.pth"])
def test_a_damaged_file_is_named(tmp_path, text, name):
    path = tmp_path / name
    if name.startswith("w"):
        Checkpointer(_model(), str(tmp_path), config=text).save("whole")
        content = (tmp_path / "whole.pth").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError) as caught:
        config_of_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _zoo_name(name: str) -> str:
    """torchvision's name of a tensor as Detectron2's zoo writes it (its tools/convert-torchvision-to-d2.py)."""
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def test_a_resnet_of_detectrons_zoo_is_the_backbone(tiny_cfg, tmp_path):
    """R-50.pkl: no `backbone.` in its names. The features are those of the network that it was made of."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    arrays = {_zoo_name(name): value.numpy() for name, value in theirs.state_dict().items()}
    path = tmp_path / "R-50.pkl"
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "BN", config="ddl_i/mask2former_resnet50.yaml")
    assert cfg.MODEL.WEIGHTS == "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
    model = build_model(cfg).eval()
    with pytest.raises(CheckpointError, match="sem_seg_head"):
        load_weights(model, path)  # no checkpoint to evaluate
    report = load_weights(model, path, allow_partial=True)
    assert report.unused == ["backbone.stem.fc.weight", "backbone.stem.fc.bias"]
    assert not [name for name in report.missing if name.startswith("backbone.")]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        features = model.backbone(image)
        for name, layer in zip(("res2", "res3", "res4", "res5"), ("layer1", "layer2", "layer3", "layer4"), strict=True):
            x = getattr(theirs, layer)(x)
            torch.testing.assert_close(features[name], x, rtol=1e-3, atol=1e-3)
