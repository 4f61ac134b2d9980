"""Loupe's pyramid: four levels of a map that has one, all of its channels kept.

Shapes: `B` images, `C` channels, `h, w` cells of the tokens' grid.
"""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

LEVELS = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""Name of a level -> its stride if that of the tokens were 16; only their order is read."""


class SimplePyramid(nn.Module):
    """The map × 4, × 2, as it is, and / 2, as `res2` ... `res5`; each step of two has layers of its own."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.levels = nn.ModuleDict(
            {
                "res2": nn.Sequential(_Step(channels, up=True), _Step(channels, up=True)),
                "res3": nn.Sequential(_Step(channels, up=True)),
                "res4": nn.Sequential(),
                "res5": nn.Sequential(_Step(channels, up=False)),
            }
        )

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """Resize B×C×h×w; returns {level: B×C×·×·}."""
        return {name: level(feature) for name, level in self.levels.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each level."""
        return {name: ShapeSpec(channels=self.channels, stride=stride) for name, stride in LEVELS.items()}


class _Step(nn.Module):
    """A step of two: resize, GELU, depthwise 3 × 3, LayerNorm over the channels."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.resize = nn.ConvTranspose2d(channels, channels, 2, stride=2) if up else nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        nn.init.normal_(self.depthwise.weight, std=0.02)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(F.gelu(self.resize(x)))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
