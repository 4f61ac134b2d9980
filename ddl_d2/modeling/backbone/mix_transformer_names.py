"""Key names of published MiT weights under those of transformers' SegFormer today."""

from __future__ import annotations

import re

from torch import Tensor

# Patterns tried in turn on each key; all that match act.
_RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Earlier releases of transformers, and the files on its hub.
        (r"^segformer\.", ""),
        (r"^encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
        (r"^encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
        (r"^encoder\.layer_norm\.(\d+)\.", r"stages.\1.layer_norm."),
        (r"\.attention\.self\.query\.", ".attention.q_proj."),
        (r"\.attention\.self\.key\.", ".attention.k_proj."),
        (r"\.attention\.self\.value\.", ".attention.v_proj."),
        (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
        (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.layer_norm_1\.", ".layernorm_before."),
        (r"\.layer_norm_2\.", ".layernorm_after."),
        (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
        # mmsegmentation.
        (r"^layers\.(\d)\.0\.projection\.", r"stages.\1.patch_embeddings.proj."),
        (r"^layers\.(\d)\.0\.norm\.", r"stages.\1.patch_embeddings.layer_norm."),
        (r"^layers\.(\d)\.1\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"^layers\.(\d)\.2\.", r"stages.\1.layer_norm."),
        (r"\.attn\.attn\.in_proj_(\w+)$", r".attention.qkv.\1"),
        (r"\.attn\.attn\.out_proj\.", ".attention.o_proj."),
        (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.dwconv.dwconv."),
        (r"\.ffn\.layers\.4\.", ".mlp.fc2."),
        # The original release, which counts stages from 1.
        (r"^patch_embed(\d)\.norm\.", r"stage \1.patch_embeddings.layer_norm."),
        (r"^patch_embed(\d)\.", r"stage \1.patch_embeddings."),
        (r"^norm(\d)\.", r"stage \1.layer_norm."),
        (r"^block(\d)\.", r"stage \1.blocks."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.q\.", ".attention.q_proj."),
        (r"\.attn\.kv\.", ".attention.kv."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.attn\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
        (r"\.attn\.norm\.", ".attention.sequence_reduction.layer_norm."),
    )
]


def transformers_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a MiT's state dict to the names that transformers has today.

    It may be of the original release, which keeps keys and values of attention in one layer, keys first; of
    mmsegmentation, which keeps queries, keys and values in one, in this order, and has 1 × 1 convolutions for linear
    layers; or of any release of transformers. Strangers keep their names.
    """
    renamed = {}
    for key, value in weights.items():
        for pattern, replacement in _RENAMES:
            key = pattern.sub(replacement, key)
        key = re.sub(r"^stage (\d)", lambda match: f"stages.{int(match[1]) - 1}", key)
        joined = re.search(r"\.attention\.(q?kv)\.", key)
        if joined:
            for part, rows in zip(joined[1], value.chunk(len(joined[1])), strict=True):
                renamed[key.replace(f".{joined[1]}.", f".{part}_proj.")] = rows
        elif re.search(r"\.mlp\.fc\d\.weight$", key):
            renamed[key] = value.flatten(1)
        else:
            renamed[key] = value
    return renamed
