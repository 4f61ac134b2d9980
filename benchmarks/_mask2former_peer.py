"""Hugging Face transformers' Mask2Former with this project's weights: the peer of `benchmark_model.py`.

Both name the same network's parameters differently, and transformers keeps some of them apart that are one tensor here
(queries, keys and values of an attention). Nothing is downloaded: only the constructors of transformers are used.

Shapes: `B` images, `Q` queries, `H, W` pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, SwinConfig

_ENCODER = "model.pixel_level_module.encoder."
_PIXEL_DECODER = "model.pixel_level_module.decoder."
_TRANSFORMER = "model.transformer_module."
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
# Not in our weights: a norm whose output nobody reads, and the loss weights, which follow from the configuration.
_FREE = re.compile(r"\.encoder\.swin\.layernorm\.|^criterion\.empty_weight$")


def build_peer(backbone: str, num_queries: int, weights: dict[str, Tensor]) -> nn.Module:
    """Mask2Former for one class with our state dict `weights`; `backbone` resnet50 or swin_tiny.

    Raises ValueError if one of our tensors finds no place, or one of the peer's stays empty.
    """
    transformers.logging.set_verbosity_error()  # it warns that ResNet is none of the backbones it knows
    backbone_config = {
        "resnet50": lambda: ResNetConfig(out_features=_STAGES),
        "swin_tiny": lambda: SwinConfig(out_features=_STAGES, drop_path_rate=0.0),
    }[backbone]()
    config = Mask2FormerConfig(backbone_config=backbone_config, num_labels=1, num_queries=num_queries)
    peer = Mask2FormerForUniversalSegmentation(config)
    result = peer.load_state_dict(to_peer_names(weights), strict=False)
    empty = [name for name in result.missing_keys if not _FREE.search(name)]
    if empty or result.unexpected_keys:
        raise ValueError(f"weights do not fit transformers {transformers.__version__}: "
                         f"without a value {empty[:3]}, without a place {result.unexpected_keys[:3]}")  # fmt: skip
    return peer


def paint(masks: Tensor, logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The published post-processing: mask logits Q×h×w, class logits Q×2 -> map of the forged class, H×W.

    All masks are painted at full size, then summed, each weighted by its query's probability.
    """
    painted = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0].sigmoid()
    return torch.einsum("q,qhw->hw", logits.softmax(-1)[:, 0], painted)


def to_peer_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the peer's names; ValueError for a tensor that no rule below knows."""
    renamed = {}
    for name, value in weights.items():
        for part, tensor in _split(name, value).items():
            renamed[_peer_name(part)] = tensor
    return renamed


def _split(name: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor of queries, keys and values -> three. The peer, too, has them in one in its cross-attention."""
    if ".transformer_self_attention_layers." in name and ".in_proj_" in name:
        stem, parameter = name.split(".in_proj_")
    elif ".attn.qkv." in name:
        stem, parameter = name.split(".qkv.")
    else:
        return {name: value}
    return {f"{stem}.{x}_proj.{parameter}": part for x, part in zip("qkv", value.chunk(3), strict=True)}


Rule = tuple[str, str | Callable[[re.Match], str]]


def _resnet_stage(match: re.Match) -> str:
    """Detectron2 calls the first stage res2."""
    stage, block, rest = int(match[1]) - 2, match[2], match[3]
    rest = re.sub(r"^conv(\d)", lambda conv: f"layer.{int(conv[1]) - 1}", rest)
    return f"{_ENCODER}encoder.stages.{stage}.layers.{block}.{_convolution(rest)}"


def _convolution(name: str) -> str:
    """Detectron2 hangs a convolution's norm below it; the peer has both side by side."""
    if ".norm." in name:
        return name.replace(".norm.", ".normalization.")
    return name.replace(".weight", ".convolution.weight")


def _swin_downsample(match: re.Match) -> str:
    """Timm reduces at the start of a stage, the peer at the end of the one before; the order of pixels is the same."""
    return f"{_ENCODER}swin.encoder.layers.{int(match[1]) - 1}.downsample.{match[2]}"


def _swin_block(match: re.Match) -> str:
    stage, block, rest = match.groups()
    for ours, theirs in (
        ("norm1.", "layernorm_before."),
        ("norm2.", "layernorm_after."),
        ("attn.proj.", "attention.o_proj."),
        ("attn.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
        ("attn.", "attention."),
    ):
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    return f"{_ENCODER}swin.encoder.layers.{stage}.blocks.{block}.{rest}"


def _decoder_layer(suffix: str) -> str:
    return rf"{_TRANSFORMER}decoder.layers.\1.{suffix}"


_LAYER = r"sem_seg_head\.predictor\.transformer_"

# (our whole name, the peer's); the first that matches counts.
_RULES: list[Rule] = [
    # ResNet
    (r"backbone\.stem\.conv1\.(.+)", lambda m: f"{_ENCODER}embedder.embedder" + _convolution(f".{m[1]}")),
    (r"backbone\.res(\d)\.(\d+)\.(.+)", _resnet_stage),
    # Swin
    (r"backbone\.body\.patch_embed\.proj\.(.+)", rf"{_ENCODER}swin.embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.body\.patch_embed\.norm\.(.+)", rf"{_ENCODER}swin.embeddings.norm.\1"),
    (r"backbone\.body\.layers_(\d)\.downsample\.(.+)", _swin_downsample),
    (r"backbone\.body\.layers_(\d)\.blocks\.(\d+)\.(.+)", _swin_block),
    (r"backbone\.out_norms\.res(\d)\.(.+)", lambda m: f"{_ENCODER}hidden_states_norms.stage{int(m[1]) - 1}.{m[2]}"),
    # pixel decoder
    (r"sem_seg_head\.pixel_decoder\.input_proj\.(.+)", rf"{_PIXEL_DECODER}input_projections.\1"),
    (r"sem_seg_head\.pixel_decoder\.transformer\.level_embed", f"{_PIXEL_DECODER}level_embed"),
    (r"sem_seg_head\.pixel_decoder\.(adapter_\d|layer_\d)\.norm\.(.+)", rf"{_PIXEL_DECODER}\1.1.\2"),
    (r"sem_seg_head\.pixel_decoder\.(adapter_\d|layer_\d)\.(.+)", rf"{_PIXEL_DECODER}\1.0.\2"),
    (r"sem_seg_head\.pixel_decoder\.mask_features\.(.+)", rf"{_PIXEL_DECODER}mask_projection.\1"),
    *[
        (rf"sem_seg_head\.pixel_decoder\.transformer\.(encoder\.layers\.\d+)\.{ours}\.(.+)",
         rf"{_PIXEL_DECODER}\1.{theirs}.\2")
        for ours, theirs in (
            ("self_attn", "self_attn"), ("norm1", "self_attn_layer_norm"), ("norm2", "final_layer_norm"),
            ("linear1", "fc1"), ("linear2", "fc2"),
        )
    ],
    # query decoder
    (_LAYER + r"cross_attention_layers\.(\d+)\.multihead_attn\.(.+)", _decoder_layer(r"cross_attn.\2")),
    (_LAYER + r"cross_attention_layers\.(\d+)\.norm\.(.+)", _decoder_layer(r"cross_attn_layer_norm.\2")),
    (_LAYER + r"self_attention_layers\.(\d+)\.self_attn\.(.+)", _decoder_layer(r"self_attn.\2")),
    (_LAYER + r"self_attention_layers\.(\d+)\.norm\.(.+)", _decoder_layer(r"self_attn_layer_norm.\2")),
    (_LAYER + r"ffn_layers\.(\d+)\.linear(\d)\.(.+)", _decoder_layer(r"fc\2.\3")),
    (_LAYER + r"ffn_layers\.(\d+)\.norm\.(.+)", _decoder_layer(r"final_layer_norm.\2")),
    (r"sem_seg_head\.predictor\.decoder_norm\.(.+)", rf"{_TRANSFORMER}decoder.layernorm.\1"),
    (r"sem_seg_head\.predictor\.query_feat\.(.+)", rf"{_TRANSFORMER}queries_features.\1"),
    (r"sem_seg_head\.predictor\.query_embed\.(.+)", rf"{_TRANSFORMER}queries_embedder.\1"),
    (r"sem_seg_head\.predictor\.level_embed\.(.+)", rf"{_TRANSFORMER}level_embed.\1"),
    (r"sem_seg_head\.predictor\.class_embed\.(.+)", r"class_predictor.\1"),
    (r"sem_seg_head\.predictor\.mask_embed\.layers\.(\d)\.(.+)",
     rf"{_TRANSFORMER}decoder.mask_predictor.mask_embedder.\1.0.\2"),
]  # fmt: skip


def _peer_name(name: str) -> str:
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    raise ValueError(f"no rule says what transformers calls our {name}")
