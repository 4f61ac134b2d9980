"""Published checkpoints of the segmentors in S1's Table 1 under this project's names.

mmsegmentation 1.2    backbone.*, decode_head.*, auxiliary_head.* of HRNet, of UperNet with Swin and of SegFormer
segment-anything      image_encoder.*, mask_decoder.*; of prompt_encoder.* what has a place without prompts
IML-ViT               encoder_net.*, featurePyramid_net.*, predict_head.*
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from ddl_d2.modeling.backbone.mix_transformer_names import transformers_names
from ddl_d2.modeling.backbone.plain_vit import plain_vit_names

Weights = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]  # pattern, replacement; tried in turn on each key, all that match act

_MMSEGMENTATION_HEAD: Rules = (
    (r"\.conv\.", "."),
    (r"\.bn\.", ".norm."),
    (r"^psp_modules\.(\d)\.1\.", r"pooled.\1."),
    (r"^bottleneck\.", "top."),
    (r"^lateral_convs\.", "laterals."),
    (r"^fpn_convs\.", "outputs."),
    (r"^(fpn_bottleneck|fusion_conv)\.", "fuse."),
    (r"^conv_seg\.", "predict."),
)
_SWIN: Rules = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.", "layers_"),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_SAM_DECODER: Rules = (
    (r"^transformer\.norm_final_attn\.", "transformer.layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"^output_upscaling\.0\.", "upscale_conv1."),
    (r"^output_upscaling\.1\.", "upscale_layer_norm."),
    (r"^output_upscaling\.3\.", "upscale_conv2."),
    (r"^(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"^(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"^(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
)
_SAM_NECK: Rules = (
    (r"^neck\.0\.", "simfp_4.0."),
    (r"^neck\.1\.", "simfp_4.0.norm."),
    (r"^neck\.2\.", "simfp_4.1."),
    (r"^neck\.3\.", "simfp_4.1.norm."),
)
_SAM_PROMPT_ENCODER = {
    "prompt_encoder.no_mask_embed.weight": "sem_seg_head.no_mask.weight",
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "sem_seg_head.frequencies",
}
_IML_VIT_HEAD: Rules = (
    (r"^linear_fuse\.", "fuse."),
    (r"^norm\.", "fuse.norm."),
    (r"^linear_predict\.", "predict."),
)


def from_published_segmentor(weights: Weights) -> Weights:
    """Rename the keys of a published segmentor; any other state dict is returned as it is."""
    if "image_encoder.patch_embed.proj.weight" in weights:
        return _from_sam(weights)
    if "encoder_net.patch_embed.proj.weight" in weights:
        return _from_iml_vit(weights)
    if "decode_head.conv_seg.weight" in weights:
        encoders: dict[str, Callable[[Weights], Weights]] = {
            "backbone.stage4.0.branches.0.0.conv1.weight": _hrnet,
            "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight": _swin,
            "backbone.layers.0.0.projection.weight": _mix_transformer,
        }
        for key, encoder in encoders.items():
            if key in weights:
                return _from_mmsegmentation(weights, encoder)
    return weights


def _from_mmsegmentation(weights: Weights, encoder: Callable[[Weights], Weights]) -> Weights:
    # The only convolutions of SegFormer's head that are called `convs` bring features to one number of channels.
    convolutions: Rules = ((r"^convs\.", "project."),) if encoder is _mix_transformer else ((r"^convs\.0\.", "fuse."),)
    return (
        encoder(_below("backbone.", weights))
        | _renamed("sem_seg_head.", _below("decode_head.", weights), (*convolutions, *_MMSEGMENTATION_HEAD))
        | _renamed("auxiliary_head.", _below("auxiliary_head.", weights), (*convolutions, *_MMSEGMENTATION_HEAD))
    )


def _hrnet(weights: Weights) -> Weights:
    return _renamed("backbone.body.", weights)


def _mix_transformer(weights: Weights) -> Weights:
    return _renamed("backbone.body.", transformers_names(weights))


def _swin(weights: Weights) -> Weights:
    """Rename mmsegmentation's Swin to timm's.

    Downsampling moves from the end of a stage to the start of the next. Its 4C inputs are the channels, each with the
    four pixels (row, column) 00, 01, 10, 11, in mmsegmentation; and the pixels 00, 10, 01, 11, each with all channels,
    in timm as in the original release. In another order they would load without an error, and give noise.
    """
    body, norms = {}, {}
    for key, value in weights.items():
        norm = re.fullmatch(r"norm(\d)\.(\w+)", key)
        if norm:
            norms[f"backbone.out_norms.res{int(norm[1]) + 2}.{norm[2]}"] = value
        elif not key.endswith("relative_position_index"):
            name = _name(key, _SWIN)
            downsample = re.fullmatch(r"layers_(\d)\.downsample\.(.+)", name)
            if downsample:
                name = f"layers_{int(downsample[1]) + 1}.downsample.{downsample[2]}"
                by_channel = value.reshape(*value.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
                value = by_channel.transpose(-1, -2).reshape(value.shape)
            body[name] = value
    return _renamed("backbone.body.", body) | norms


def _from_sam(weights: Weights) -> Weights:
    encoder = _below("image_encoder.", weights)
    neck = {key: value for key, value in encoder.items() if key.startswith("neck.")}
    transformer = {key: value for key, value in encoder.items() if key not in neck}
    prompts = _below("prompt_encoder.", weights)
    return (
        _renamed("backbone.net.", plain_vit_names(transformer))
        | _renamed("backbone.", neck, _SAM_NECK)
        | _renamed("sem_seg_head.decoder.", _below("mask_decoder.", weights), _SAM_DECODER)
        | {_SAM_PROMPT_ENCODER.get(key, key): value for key, value in _renamed("prompt_encoder.", prompts).items()}
    )


def _from_iml_vit(weights: Weights) -> Weights:
    return (
        _renamed("backbone.net.", _below("encoder_net.", weights))
        | _renamed("backbone.", _below("featurePyramid_net.", weights))
        | _renamed("sem_seg_head.", _below("predict_head.", weights), _IML_VIT_HEAD)
    )


def _below(prefix: str, weights: Weights) -> Weights:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _renamed(prefix: str, weights: Weights, rules: Rules = ()) -> Weights:
    return {prefix + _name(key, rules): value for key, value in weights.items()}


def _name(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
