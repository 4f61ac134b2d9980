"""What the semantic heads are made of.

Shapes: `B` images, `C` channels, `K` classes, `h, w` places of a map.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from ddl_d2.errors import ConfigError


def head_arguments(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    """Return what every convolutional head takes from MODEL.SEM_SEG_HEAD and MODEL.SEGMENTOR."""
    head, segmentor = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.SEGMENTOR
    return {
        "input_shape": input_shape,
        "in_features": head.IN_FEATURES,
        "num_classes": head.NUM_CLASSES,
        "norm": head.NORM,
        "dropout_rate": segmentor.DROPOUT,
        "channel_dropout": segmentor.CHANNEL_DROPOUT,
    }


def convolution(in_channels: int, out_channels: int, *, kernel: int, norm: str, rectify: bool = True) -> Conv2d:
    """Make a convolution that keeps the size of a map, its norm and a rectifier; without the latter it has a bias."""
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel,
        padding=kernel // 2,
        bias=not rectify,
        norm=get_norm(norm, out_channels),
        activation=F.relu if rectify else None,
    )
    c2_msra_fill(layer)
    return layer


def classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """Make the last layer, 1 × 1, as PyTorch initializes it.

    Not near 0, as mmsegmentation does: most pixels are authentic, and from there all weights turn negative within the
    first steps, whereupon the rectifier before silences every channel where something is forged: P(forged) then stays
    at 0.5 or below for good.
    """
    return nn.Conv2d(in_channels, num_classes, 1)


def dropout(rate: float, *, channels: bool) -> nn.Module:
    """Make a dropout of whole channels, or of single values."""
    return nn.Dropout2d(rate) if channels else nn.Dropout(rate)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Resize B×C×h×w to the height and width of `like`, bilinearly."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def by_stride(names: list[str], input_shape: dict[str, ShapeSpec], key: str) -> list[str]:
    """Sort features from the finest to the coarsest.

    Raises:
        ConfigError: there are none, or the encoder lacks one; names `key`.
    """
    missing = [name for name in names if name not in input_shape]
    if missing or not names:
        raise ConfigError(f"{key} is {names}: it must name some of the encoder's features, {', '.join(input_shape)}")
    return sorted(names, key=lambda name: input_shape[name].stride)
