"""The network computes what the published Mask2Former computes, from checkpoints in its key names."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.data.datasets import load_config
from ddl_d2.errors import CheckpointError
from ddl_d2.modeling.test_time.folding import fold_norms
from tests.conftest import ROOT
from tests.modeling.meta_arch.published import REFERENCE, published_checkpoint, reference_image

_FULL_SIZE = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "", "MODEL.WEIGHTS", ""]


@pytest.fixture(scope="module")
def resnet50_weights():
    return published_checkpoint("mask2former_resnet50")


@pytest.fixture(scope="module")
def outputs(resnet50_weights, tmp_path_factory):
    """From a file as the model zoo ships it."""
    path = tmp_path_factory.mktemp("zoo") / "published.pkl"
    arrays = {key: value.numpy() for key, value in resnet50_weights.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}))
    return _outputs(_loaded(path))


def test_resnet50_checkpoint_gives_the_published_outputs(outputs):
    _agree(_excerpt(outputs), np.load(REFERENCE / "mask2former_resnet50.npz"))


def test_it_still_does_once_its_norms_are_folded(resnet50_weights, tmp_path):
    torch.save({"model": resnet50_weights}, tmp_path / "published.pth")
    model = _loaded(tmp_path / "published.pth")
    fold_norms(model)
    _agree(_excerpt(_outputs(model)), np.load(REFERENCE / "mask2former_resnet50.npz"))


def test_more_of_the_published_outputs(shared, outputs):
    every = {"pred_logits": 1, "pred_masks": 5, "mask_features": 32, "res5": 64}
    got = {name: outputs[name][::step] for name, step in every.items()}
    _agree(got, np.load(shared / "reference" / "mask2former_r50.npz"))


def _excerpt(outputs):
    """What the repository keeps of them; see reference/README.md."""
    return {
        "pred_logits": outputs["pred_logits"],
        "pred_masks": outputs["pred_masks"][::20, ::2, ::2],
        "mask_features": outputs["mask_features"][::128, ::2, ::2],
        "res5": outputs["res5"][::128],
    }


def _loaded(path) -> torch.nn.Module:
    model = build_model(load_config(ROOT / "configs/ddl_i/mask2former_resnet50.yaml", _FULL_SIZE)).eval()
    report = load_weights(model, path, allow_partial=True)
    assert report.missing == ["image_head.linear.weight", "image_head.linear.bias"]
    assert report.misshapen == []
    assert report.unused == []
    return model


@torch.no_grad()
def _outputs(model) -> dict[str, torch.Tensor]:
    image = (reference_image() - model.pixel_mean) / model.pixel_std
    features = model.backbone(image[None])
    mask_features, _ = model.sem_seg_head.pixel_decoder(features)
    output = model.sem_seg_head(features)
    return {
        "res5": features["res5"][0],
        "mask_features": mask_features[0],
        "pred_logits": output["pred_logits"][0],
        "pred_masks": output["pred_masks"][0],
    }


def _agree(got, expected):
    assert set(got) == set(expected)
    for name, value in got.items():
        assert value.shape == expected[name].shape, name
        error = np.abs(value.numpy() - expected[name]).max() / np.abs(expected[name]).max()
        assert error < 1e-4, f"{name}: relative error {error:.2e}"


def test_strict_loading_refuses_what_the_published_file_lacks(resnet50_weights, tmp_path):
    torch.save({"model": resnet50_weights}, tmp_path / "published.pth")
    cfg = load_config(ROOT / "configs/ddl_i/mask2former_resnet50.yaml", _FULL_SIZE)
    with pytest.raises(CheckpointError, match="image_head.linear.weight"):
        load_weights(build_model(cfg), tmp_path / "published.pth")


@pytest.mark.parametrize("num_classes", [1, 2])
def test_swin_keys_all_find_their_place(tmp_path, num_classes):
    weights = published_checkpoint("mask2former_swin_tiny")
    published_classes = weights["sem_seg_head.predictor.class_embed.bias"].shape[0] - 1
    torch.save({"model": weights}, tmp_path / "swin.pth")
    opts = [*_FULL_SIZE, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(num_classes)]
    model = build_model(load_config(ROOT / "configs/ddl_i/mask2former_swin_tiny.yaml", opts))
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_weights(model, tmp_path / "swin.pth", allow_partial=True)

    assert report.missing == ["image_head.linear.weight", "image_head.linear.bias"]
    assert report.unused == []
    resized = [entry.split(" ")[0] for entry in report.misshapen]
    if num_classes == published_classes:
        assert resized == []
    else:  # the class head of another size keeps its initialization, and the report says so
        assert resized == [
            "sem_seg_head.predictor.class_embed.weight",
            "sem_seg_head.predictor.class_embed.bias",
        ]
        head = "sem_seg_head.predictor.class_embed.weight"
        assert torch.equal(model.state_dict()[head], fresh[head])
    # A stage's downsampling sits at the end of the published stage 0 and at the start of timm's stage 1.
    assert torch.equal(
        model.state_dict()["backbone.body.layers_1.downsample.reduction.weight"],
        weights["backbone.layers.0.downsample.reduction.weight"],
    )
    assert torch.equal(model.state_dict()["backbone.out_norms.res5.bias"], weights["backbone.norm3.bias"])
