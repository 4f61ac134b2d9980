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

_FULL_SIZE = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "", "MODEL.WEIGHTS", ""]


def _keys(path) -> dict[str, tuple[int, ...]]:
    rows = (line.split(" ", 1) for line in path.read_text().splitlines() if line)
    return {key: tuple(int(n) for n in shape.strip("()\n").split(",") if n.strip()) for key, shape in rows}


def _published(path, reference) -> dict[str, torch.Tensor]:
    """A checkpoint with every published key and shape, filled by name."""
    tensors = {key: torch.zeros(shape) for key, shape in _keys(path).items()}
    tensors["criterion.empty_weight"] = torch.tensor([1.0, 0.1])
    return reference.fill_by_name(tensors)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_resnet50_checkpoint_gives_the_published_outputs(shared, reference, tmp_path, suffix):
    """As it is loaded, and, in the second case, as it predicts."""
    expected = np.load(shared / "reference" / "mask2former_r50.npz")
    weights = _published(shared / "reference" / "mask2former_r50.keys.txt", reference)
    path = tmp_path / f"published{suffix}"
    if suffix == ".pkl":  # as the model zoo ships them
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in weights.items()}, "__author__": "zoo"}))
    else:
        torch.save({"model": weights}, path)

    cfg = load_config(ROOT / "configs/ddl_i/mask2former_resnet50.yaml", _FULL_SIZE)
    model = build_model(cfg).eval()
    report = load_weights(model, path, allow_partial=True)
    assert report.missing == ["image_head.linear.weight", "image_head.linear.bias"]
    assert report.misshapen == []
    assert report.unused == []
    if suffix == ".pth":
        fold_norms(model)

    image = (reference.reference_image() - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        features = model.backbone(image[None])
        mask_features, _ = model.sem_seg_head.pixel_decoder(features)
        output = model.sem_seg_head(features)
    got = {
        "res5": features["res5"][0, ::64],
        "mask_features": mask_features[0, ::32],
        "pred_logits": output["pred_logits"][0],
        "pred_masks": output["pred_masks"][0, ::5],
    }
    for name, value in got.items():
        scale = np.abs(expected[name]).max()
        error = np.abs(value.numpy() - expected[name].reshape(value.shape)).max() / scale
        assert error < 1e-4, f"{name}: relative error {error:.2e}"


def test_strict_loading_refuses_what_the_published_file_lacks(shared, reference, tmp_path):
    weights = _published(shared / "reference" / "mask2former_r50.keys.txt", reference)
    torch.save({"model": weights}, tmp_path / "published.pth")
    cfg = load_config(ROOT / "configs/ddl_i/mask2former_resnet50.yaml", _FULL_SIZE)
    with pytest.raises(CheckpointError, match="image_head.linear.weight"):
        load_weights(build_model(cfg), tmp_path / "published.pth")


@pytest.mark.parametrize("num_classes", [1, 2])
def test_swin_keys_all_find_their_place(shared, reference, tmp_path, num_classes):
    weights = _published(shared / "reference" / "mask2former_swin_tiny.keys.txt", reference)
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
