"""What an encoder says of an image place by place and as a whole, whatever encoder it is.

Shapes: `B` images, `N` tokens (the `h · w` cells of a grid, row by row), `C` channels, `H, W` pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone
from torch import Tensor

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.postprocessing import Size
from ddl_d2.utils.transfer import to_device


@dataclass(frozen=True)
class Tokens:
    """A batch, encoded; all that heads on tokens need.

    Attributes:
        tokens: B×N×C, without the class token.
        pooled: B×C, of each image as a whole.
        grid: (h, w).
        class_token: B×C; None: the encoder has none.
    """

    tokens: Tensor
    pooled: Tensor
    grid: Size
    class_token: Tensor | None = None

    def map(self) -> Tensor:
        """Lay the tokens out as a feature map, B×C×h×w."""
        return self.tokens.transpose(1, 2).unflatten(2, self.grid)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors there are by name, each with B in front, as a cache of tokens keeps them."""
        named = {"tokens": self.tokens, "pooled": self.pooled, "class_token": self.class_token}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def of_rows(cls, rows: list[dict[str, Any]], grid: Size, device: torch.device) -> Tokens:
        """Make a batch of rows that bring the `tensors` of their image under `tokens`, in fp32 on a device."""
        stacked = {name: torch.stack([row["tokens"][name] for row in rows]) for name in rows[0]["tokens"]}
        return cls(grid=grid, **{name: to_device(value, device).float() for name, value in stacked.items()})


class TokenBackbone(Backbone):
    """An encoder of square images of one size into `Tokens`.

    Attributes:
        channels: C.
        grid: (h, w), the same for every image.
        patch: side in pixels of the square that a token stands for.
    """

    channels: int
    grid: Size
    patch: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tokens:
        """Encode B×3×S×S, normalized."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of the tokens' map."""
        return {"tokens": ShapeSpec(channels=self.channels, stride=self.patch)}


class FeatureTokens(TokenBackbone):
    """Any backbone's feature maps as tokens; an image as a whole is their mean."""

    def __init__(self, *, backbone: Backbone, in_features: list[str], input_size: int) -> None:
        """Read the shapes.

        Args:
            backbone: gives {name: feature map}.
            in_features: names of the maps that are put side by side. The first says the grid; the others are resized
                to it, finer ones by averaging.
            input_size: side of the images in pixels.

        Raises:
            ConfigError: the backbone lacks a feature, or its cells do not divide the image.
        """
        super().__init__()
        shapes = backbone.output_shape()
        missing = [name for name in in_features if name not in shapes]
        if missing or not in_features:
            raise ConfigError(
                f"the backbone gives {', '.join(shapes)}, not {', '.join(missing) or 'nothing'}: mend "
                "MODEL.DETECTION.IN_FEATURES, whose first names the grid of the tokens"
            )
        self.backbone = backbone
        self.in_features = list(in_features)
        self.channels = sum(shapes[name].channels for name in in_features)
        self.patch = shapes[in_features[0]].stride
        divisor = max(self.patch, backbone.size_divisibility)
        if input_size < divisor or input_size % divisor:
            raise ConfigError(f"MODEL.LOUPE.INPUT_SIZE is {input_size}: with this backbone, a multiple of {divisor}")
        self.grid = (input_size // self.patch, input_size // self.patch)

    def forward(self, images: Tensor) -> Tokens:
        """Encode B×3×S×S, normalized."""
        features = self.backbone(images)
        tokens = torch.cat([_resized(features[name], self.grid) for name in self.in_features], dim=1)
        return Tokens(tokens=tokens.flatten(2).transpose(1, 2), pooled=tokens.mean(dim=(2, 3)), grid=self.grid)


def _resized(feature: Tensor, grid: Size) -> Tensor:
    if feature.shape[2] > grid[0]:
        return F.adaptive_avg_pool2d(feature, grid)
    if feature.shape[2] < grid[0]:
        return F.interpolate(feature, grid, mode="bilinear", align_corners=False)
    return feature


def build_token_backbone(cfg: CfgNode) -> TokenBackbone:
    """Build the backbone that MODEL.BACKBONE.NAME says; one of feature maps gives MODEL.DETECTION.IN_FEATURES."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.LOCALIZATION.ENABLED = False  # what localizes reads the tokens, no further features of the backbone
    backbone = build_backbone(cfg)
    if isinstance(backbone, TokenBackbone):
        return backbone
    return FeatureTokens(
        backbone=backbone, in_features=cfg.MODEL.DETECTION.IN_FEATURES, input_size=cfg.MODEL.LOUPE.INPUT_SIZE
    )
