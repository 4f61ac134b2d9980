"""Loupe's published files under the names here: one stage's, several together, and a Perception Encoder alone."""

from __future__ import annotations

import pytest
import torch

from ddl_d2.checkpoint.loading import load_checkpoint
from ddl_d2.checkpoint.loupe_names import from_published_loupe
from ddl_d2.errors import CheckpointError
from tests.modeling.loupe.published import build_loupe, published_weights


@pytest.fixture(scope="module")
def weights(shared):
    return published_weights(shared, "small")


def _of(weights, *parts):
    return {key: value for key, value in weights.items() if key.split(".")[1] in parts}


def _metas(weights):
    """The encoder as Meta's file has it."""
    return {key.replace("loupe.backbone.", "visual."): value for key, value in _of(weights, "backbone").items()}


def _load(weights, allow_partial=True):
    model = build_loupe("small")
    return model.state_dict(), load_checkpoint(model, {"model": weights}, "x", allow_partial=allow_partial)


def test_some_names():
    one, two = torch.ones(1), torch.full((1,), 2.0)
    layer = "segmentor.mask2former_decoder.decoder.layers.3."
    got = from_published_loupe(
        {
            "loupe.classifier.fuser.fuse.weight": one,
            "loupe.classifier.patch_classifier.layers.1.bias": one,
            "loupe.segmentor.fpn.scale_layers.3.0.conv2.weight": one,
            "loupe.segmentor.label_embedding.0": one,
            "loupe.segmentor.label_embedding.1": two,
            "loupe.segmentor.pixel_decoder.encoder.layers.5.cross_attn.out_proj.bias": one,
            f"loupe.{layer}self_attn.v_proj.bias": torch.full((1,), 3.0),
            f"loupe.{layer}self_attn.q_proj.bias": one,
            f"loupe.{layer}self_attn.k_proj.bias": two,
            "loupe.segmentor.criterion.empty_weight": one,
        }
    )
    predictor = "segmentor.head.predictor.transformer_self_attention_layers.3.self_attn.in_proj_bias"
    assert {name: value.flatten().tolist() for name, value in got.items()} == {
        "classifier.fusion.weight": [1],
        "classifier.patch_head.2.bias": [1],
        "segmentor.pyramid.levels.res5.0.depthwise.weight": [1],
        "segmentor.condition.real_and_fake.weight": [1, 2],
        "segmentor.head.pixel_decoder.transformer.encoder.layers.5.condition_attn.out_proj.bias": [1],
        predictor: [1, 2, 3],
    }


def test_other_names_stay():
    weights = {"backbone.class_embedding": torch.ones(1), "classifier.fusion.weight": torch.ones(1)}
    assert from_published_loupe(weights) == weights


def test_stages_together_with_metas_encoder_fill_everything(weights):
    """Stage 1's and stage 2's files have no encoder; Meta's has a text tower besides."""
    encoder = _metas(weights)
    text = {"text_projection": torch.zeros(2), "visual.proj": torch.zeros(2)}
    state, report = _load(encoder | text | _of(weights, "classifier") | _of(weights, "segmentor"), allow_partial=False)
    assert (report.missing, report.misshapen, report.unused) == ([], [], [])
    assert torch.equal(state["backbone.body.cls_token"][0, 0], weights["loupe.backbone.class_embedding"])
    # Stage 3's file has an encoder of its own, which counts.
    trained = {key: value + 1 for key, value in _of(weights, "backbone").items()}
    state, _ = _load(encoder | _of(weights, "classifier", "segmentor") | trained, allow_partial=False)
    assert torch.equal(state["backbone.body.cls_token"][0, 0], weights["loupe.backbone.class_embedding"] + 1)


@pytest.mark.parametrize("part", ["classifier", "segmentor", "backbone"])
def test_one_part_is_one_part(weights, part):
    only = _of(weights, part)
    if part == "backbone":
        only = _metas(weights)
    _, report = _load(only)
    assert report.unused == report.misshapen == []
    assert {key.partition(".")[0] for key in report.missing} == {"backbone", "classifier", "segmentor"} - {part}
    with pytest.raises(CheckpointError, match="does not fit the model"):
        _load(only, allow_partial=False)
