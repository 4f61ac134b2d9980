"""Names of a Perception Encoder's parameters in Meta's release under timm's.

class_embedding C, positional_embedding (N+1)×C     cls_token 1×1×C, pos_embed 1×(N+1)×C
conv1, ln_pre, ln_post                              patch_embed.proj, norm_pre, norm
transformer.resblocks.{i}                           blocks.{i}
attn_pool.probe                                     attn_pool.latent
attn_pool.attn.in_proj_*: q, k, v on each other     attn_pool.q, attn_pool.kv
proj, the projection to CLIP's space                left out
"""

from __future__ import annotations

import re

from torch import Tensor

_BODY = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_POOL = (
    (r"^attn_pool\.probe$", "attn_pool.latent"),
    (r"^attn_pool\.attn\.out_proj\.", "attn_pool.proj."),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
    (r"^attn_pool\.mlp\.c_fc\.", "attn_pool.mlp.fc1."),
    (r"^attn_pool\.mlp\.c_proj\.", "attn_pool.mlp.fc2."),
)


def timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a vision tower: Meta's bare, of a whole CLIP (`visual.`) or of Loupe (`backbone.`); others stay."""
    for prefix in ("visual.", "loupe.backbone.", "backbone."):
        if f"{prefix}class_embedding" in weights:
            weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if "class_embedding" not in weights:
        return weights
    renamed = {}
    for key, value in weights.items():
        if key == "class_embedding":
            renamed["cls_token"] = value[None, None]
        elif key == "positional_embedding":
            renamed["pos_embed"] = value[None]
        elif key.startswith("attn_pool.attn.in_proj_"):
            kind, dim = key.rpartition("_")[2], len(value) // 3
            renamed |= {f"attn_pool.q.{kind}": value[:dim], f"attn_pool.kv.{kind}": value[dim:]}
        elif key != "proj":
            for pattern, replacement in _POOL if key.startswith("attn_pool.") else _BODY:
                key = re.sub(pattern, replacement, key)
            renamed[key] = value
    return renamed
