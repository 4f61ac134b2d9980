"""Key names of published Mask2Former checkpoints under this project's."""

from __future__ import annotations

import re

from torch import Tensor

from ddl_d2.modeling.backbone.timm_weights import swin_key_to_timm


def from_published_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of published Mask2Former checkpoints to this project's.

    ResNet's and both decoders' names are the same here. Swin's become timm's: timm downsamples at the start of a stage
    instead of the end of the one before, flattens `layers.0` to `layers_0` and recomputes the index tables. Keys that
    need no renaming pass unchanged.
    """
    renamed = {}
    swin = "backbone.layers.0.blocks.0.attn.qkv.weight" in weights
    for key, value in weights.items():
        if key in ("criterion.empty_weight", "pixel_mean", "pixel_std"):  # the config says these
            continue
        if key.endswith("predictor.static_query.weight"):
            key = key.replace("static_query", "query_feat")
        if swin and key.startswith("backbone."):
            if key.endswith("relative_position_index") or key.endswith("attn_mask"):
                continue
            key = _swin_name(key.removeprefix("backbone."))
        renamed[key] = value
    return renamed


def _swin_name(key: str) -> str:
    if re.match(r"norm\d", key):
        stage, parameter = key.removeprefix("norm").split(".")
        return f"backbone.out_norms.res{int(stage) + 2}.{parameter}"
    return "backbone.body." + swin_key_to_timm(key)
