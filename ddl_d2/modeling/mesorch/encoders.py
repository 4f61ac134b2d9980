"""Two encoders, each of which sees the image beside one half of its frequencies (Mesorch, AAAI 2025).

Shapes: `B` images, `C` channels, `H, W` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.mix_transformer import FEATURES, MIX_TRANSFORMERS, MixTransformer
from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone

_RGB, _RGB_AND_FREQUENCIES = 3, 6


class FrequencyEncoders(nn.Module):
    """A local and a global encoder of six channels, colors first."""

    def __init__(self, *, local_encoder: Backbone, global_encoder: Backbone) -> None:
        """Widen the stems of two encoders of three channels, whose features are `res2` and on."""
        super().__init__()
        for encoder in (local_encoder, global_encoder):
            widen_stem(encoder, _RGB_AND_FREQUENCIES)
        self.local_encoder = local_encoder
        self.global_encoder = global_encoder

    def forward(self, images: Tensor, high: Tensor, low: Tensor) -> dict[str, Tensor]:
        """Encode images beside their high (local encoder) and their low frequencies (global encoder).

        Args:
            images: normalized, B×3×H×W, H and W multiples of 32.
            high: B×3×H×W.
            low: B×3×H×W.

        Returns:
            {"local_res2": B×C×H/4×W/4, ..., "global_res2": ..., ...}.
        """
        local = self.local_encoder(_beside(images, high))
        whole = self.global_encoder(_beside(images, low))
        return _named("local", local) | _named("global", whole)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature."""
        return _named("local", self.local_encoder.output_shape()) | _named("global", self.global_encoder.output_shape())


def build_encoder(
    *, name: str, pretrained: str, drop_path_rate: float, deepest: str, config_keys: str
) -> TimmBackbone | MixTransformer:
    """Build a MiT or any hierarchical timm model.

    Args:
        name: "mit_b0" ... "mit_b5", or a name of timm's.
        pretrained: see `MixTransformer` and `TimmBackbone`.
        drop_path_rate: stochastic depth.
        deepest: the last of its features `res2` ... `res5`.
        config_keys: the group of config keys that errors name.

    Raises:
        ConfigError: an unknown name or feature, or weights that do not fit.
    """
    if deepest not in FEATURES:
        raise ConfigError(f"{config_keys}.MAPS names '{deepest}': maps are {', '.join(FEATURES)}")
    kind = MixTransformer if name in MIX_TRANSFORMERS else TimmBackbone
    return kind(
        name=name,
        pretrained=pretrained,
        out_features=list(FEATURES[: FEATURES.index(deepest) + 1]),
        drop_path_rate=drop_path_rate,
        config_keys=config_keys,
    )


def widen_stem(encoder: nn.Module, channels: int) -> None:
    """Make the first convolution of a 3-channel `encoder` take `channels`, and lose its bias (as published).

    Its three channels keep their (pretrained) weights, the others get Kaiming's initialization.

    Raises:
        ConfigError: the convolution has not three channels.
    """
    stem = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    if stem.in_channels != _RGB:
        raise ConfigError(f"the first convolution has {stem.in_channels} channels, not {_RGB}: choose another encoder")
    colors = stem.weight.detach()
    others = torch.empty(colors.shape[0], channels - _RGB, *colors.shape[2:])
    nn.init.kaiming_normal_(others)
    stem.weight = nn.Parameter(torch.cat([colors, others.to(colors)], dim=1))
    stem.register_parameter("bias", None)
    stem.in_channels = channels


def _beside(images: Tensor, frequencies: Tensor) -> Tensor:
    return torch.cat([images, frequencies], dim=1).contiguous(memory_format=torch.channels_last)


def _named(prefix: str, features: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": feature for name, feature in features.items()}
