"""Published checkpoints of Loupe, and Perception Encoders, under this project's names.

A stage's file has the parts that it trained (`s` counts the pyramid's scales from the finest, 2 is the map itself):

    loupe.backbone.*, or visual.* of Meta's CLIP   backbone.body.* (names: `backbone/perception_encoder_names.py`)
    classifier.classifier, .patch_classifier       classifier.global_head, .patch_head
    classifier.fuser.fuse                          classifier.fusion
    segmentor.fpn.scale_layers.{s}.{i}             segmentor.pyramid.levels.res{s + 2}.{i}
    segmentor.label_embedding.{0, 1}               segmentor.condition.real_and_fake, its rows
    segmentor.pixel_decoder                        segmentor.head.pixel_decoder
    segmentor.mask2former_decoder, class_predictor segmentor.head.predictor; self-attention's q, k, v in one

Files of several stages are put together before they are loaded (docs/reproduce.md).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ddl_d2.modeling.backbone.perception_encoder_names import timm_names

Rules = tuple[tuple[str, str], ...]  # pattern, replacement; tried in turn on each key, all that match act

_CLASSIFIER: Rules = (
    (r"^classifier\.classifier\.layers\.0\.", "classifier.global_head.0."),
    (r"^classifier\.classifier\.layers\.1\.", "classifier.global_head.2."),
    (r"^classifier\.patch_classifier\.layers\.0\.", "classifier.patch_head.0."),
    (r"^classifier\.patch_classifier\.layers\.1\.", "classifier.patch_head.2."),
    (r"^classifier\.fuser\.fuse\.", "classifier.fusion."),
)
_PYRAMID: Rules = (
    (r"^segmentor\.fpn\.scale_layers\.0\.", "segmentor.pyramid.levels.res2."),
    (r"^segmentor\.fpn\.scale_layers\.1\.", "segmentor.pyramid.levels.res3."),
    (r"^segmentor\.fpn\.scale_layers\.3\.", "segmentor.pyramid.levels.res5."),
    (r"\.conv1\.", ".resize."),
    (r"\.conv2\.", ".depthwise."),
)
_PIXEL_DECODER: Rules = (
    (r"^segmentor\.", "segmentor.head."),
    (r"\.input_projections\.", ".input_proj."),
    (r"\.pixel_decoder\.(level_embed|encoder)", r".pixel_decoder.transformer.\1"),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.fc([12])\.", r".linear\1."),
    (r"\.cross_attn_layer_norm\.", ".condition_norm."),
    (r"\.cross_attn\.", ".condition_attn."),
    (r"\.mask_projection\.", ".mask_features."),
    (r"\.(adapter|layer)_(\d)\.0\.", r".\1_\2."),
    (r"\.(adapter|layer)_(\d)\.1\.", r".\1_\2.norm."),
)
_LAYER = r"^segmentor\.mask2former_decoder\.decoder\.layers\.(\d+)\."
_PREDICTOR: Rules = (
    (_LAYER + r"cross_attn_layer_norm\.", r"transformer_cross_attention_layers.\1.norm."),
    (_LAYER + r"cross_attn\.", r"transformer_cross_attention_layers.\1.multihead_attn."),
    (_LAYER + r"self_attn_layer_norm\.", r"transformer_self_attention_layers.\1.norm."),
    (_LAYER + r"self_attn\.", r"transformer_self_attention_layers.\1.self_attn."),
    (_LAYER + r"final_layer_norm\.", r"transformer_ffn_layers.\1.norm."),
    (_LAYER + r"fc([12])\.", r"transformer_ffn_layers.\1.linear\2."),
    (r"^segmentor\.class_predictor\.", "class_embed."),
    (r"^segmentor\.mask2former_decoder\.", ""),
    (r"^queries_features\.", "query_feat."),
    (r"^queries_embedder\.", "query_embed."),
    (r"^decoder\.layernorm\.", "decoder_norm."),
    (r"^decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.", r"mask_embed.layers.\1."),
    (r"^", "segmentor.head.predictor."),
)
_RULES = {
    "classifier.": _CLASSIFIER,
    "segmentor.fpn.": _PYRAMID,
    "segmentor.pixel_decoder.": _PIXEL_DECODER,
    "segmentor.mask2former_decoder.": _PREDICTOR,
    "segmentor.class_predictor.": _PREDICTOR,
}
_MARKS = ("visual.class_embedding", "classifier.fuser.fuse.weight", "segmentor.class_predictor.weight")


def from_published_loupe(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of Loupe's stages, of a Perception Encoder or of both; any other state dict stays as it is."""
    published = {key.removeprefix("loupe."): value for key, value in weights.items()}
    if not any(mark in published for mark in _MARKS):
        return weights
    renamed = {f"backbone.body.{key}": value for key, value in _backbone(published).items()}
    for key, value in published.items():
        for start, rules in _RULES.items():
            if key.startswith(start):
                renamed[_name(key, rules)] = value
    vectors = [f"segmentor.label_embedding.{label}" for label in (0, 1)]
    if all(key in published for key in vectors):
        renamed["segmentor.condition.real_and_fake.weight"] = torch.stack([published[key] for key in vectors])
    return _joined(renamed)


def _backbone(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the encoder, which has Meta's names with a prefix, if it is there; what trained it last counts."""
    for prefix in ("backbone.", "visual."):
        if f"{prefix}class_embedding" in published:
            return timm_names({key: value for key, value in published.items() if key.startswith(prefix)})
    return {}


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the projections of q, k and v, where they are apart, into one as the query decoder has them."""
    joined: dict[str, Tensor] = {}
    for key, value in weights.items():
        apart = re.fullmatch(r"(.+)\.([qkv])_proj\.(\w+)", key)
        if apart is None:
            joined[key] = value
        elif apart[2] == "q":
            every = [weights[f"{apart[1]}.{part}_proj.{apart[3]}"] for part in "qkv"]
            joined[f"{apart[1]}.in_proj_{apart[3]}"] = torch.cat(every)
    return joined


def _name(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
