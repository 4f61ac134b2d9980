"""Where bfloat16 is not enough.

Forensic traces are faint: a face's blend changes pixels by a few gray levels, and bfloat16 keeps eight bits. With
the backbone in fp32 the image head reads what it reads in fp32, and the score of an image is the same (figures of this
and of what lies between: docs/benchmarks.md).
"""

from __future__ import annotations

import torch
from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone, extractor_steps, same_step

_LAST_STRIDE = 32


def keep_in_fp32(backbone: nn.Module, stride: int) -> None:
    """Have the layers of `backbone` up to `stride` compute in fp32 in eval mode under bfloat16 autocast.

    0: none; 32: all. In between, timm backbones and Detectron2's ResNet are known; of others, all layers are kept.
    """
    for layer in _layers_up_to(backbone, stride):
        layer.register_forward_pre_hook(_leave_autocast)
        layer.register_forward_hook(_enter_autocast, always_call=True)


def _layers_up_to(backbone: nn.Module, stride: int) -> list[nn.Module]:
    if stride <= 0:
        return []
    if stride >= _LAST_STRIDE:
        return [backbone]
    if isinstance(backbone, ResNet):
        return [backbone.stem, *(stage for stage, s in zip(backbone.stages, (4, 8, 16), strict=False) if s <= stride)]
    if not isinstance(backbone, TimmBackbone):
        return [backbone]
    info = backbone.body.feature_info
    names = [name for name, reduction in zip(info.module_name(), info.reduction(), strict=True) if reduction <= stride]
    layers = []
    for path, layer in extractor_steps(backbone.body):
        layers.append(layer)
        if names and same_step(path, names[-1]):
            return layers
    return [backbone]


def _leave_autocast(layer: nn.Module, arguments: tuple) -> tuple | None:
    device = arguments[0].device.type
    in_bfloat16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    if layer.training or not in_bfloat16:
        return None
    layer._outside_autocast = torch.autocast(device, enabled=False)  # type: ignore[assignment]
    layer._outside_autocast.__enter__()
    return tuple(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)


def _enter_autocast(layer: nn.Module, arguments: tuple, output: object) -> None:
    context = layer.__dict__.pop("_outside_autocast", None)
    if context is not None:
        context.__exit__(None, None, None)
