"""Scores of images: the image head on a backbone's features, and the rules that make a score of a map.

Shapes: `B` images, `C` channels, `h, w` cells of a feature map, `H, W` pixels of a forgery map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.utils.transfer import on_device

ImageSizes = list[tuple[int, int]] | Tensor
"""The unpadded (height, width) of each image of a batch: a list, or int64 B×2 (1×2 if all have one size)."""


class ImageHead(nn.Module):
    """The logit of "fake", linear in the average of feature maps over the unpadded area.

    Padding is left out, or images of different shape in one batch would shift each other's score.
    """

    def __init__(self, *, in_features: list[str], input_shape: dict[str, ShapeSpec], dropout: float = 0.0) -> None:
        """Make the linear layer.

        Args:
            in_features: names of the feature maps that are averaged.
            input_shape: channels and strides of the backbone's features.
            dropout: share of the averaged features that training sets to 0.
        """
        super().__init__()
        self.dropout = dropout
        self.in_features = in_features
        self.strides = [input_shape[name].stride for name in in_features]
        self.linear = nn.Linear(sum(input_shape[name].channels for name in in_features), 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: dict[str, Tensor], image_sizes: ImageSizes) -> Tensor:
        """Return the logits, fp32 B, of {name: B×C×h×w} and the unpadded (height, width) of each image."""
        pooled = [
            valid_average(features[name].float(), image_sizes, stride)
            for name, stride in zip(self.in_features, self.strides, strict=True)
        ]
        with torch.autocast(device_type=pooled[0].device.type, enabled=False):
            pool = torch.cat(pooled, dim=1)
            if self.dropout:
                pool = F.dropout(pool, self.dropout, self.training)
            return self.linear(pool).squeeze(1)


def valid_average(feature: Tensor, image_sizes: ImageSizes, stride: int) -> Tensor:
    """Average a feature map over the cells that hold any of the image.

    Args:
        feature: B×C×h×w.
        image_sizes: unpadded (height, width) of each image, in pixels; as a tensor their values are not looked at,
            which an exported graph could not do.
        stride: pixels along a cell's side.

    Returns:
        B×C.
    """
    _, _, height, width = feature.shape
    if isinstance(image_sizes, Tensor):
        sizes = image_sizes
    elif all(math.ceil(h / stride) == height and math.ceil(w / stride) == width for h, w in image_sizes):
        return feature.mean(dim=(2, 3))
    else:
        sizes = on_device(image_sizes, feature.device)
    rows = torch.arange(height, device=feature.device) * stride < sizes[:, :1]
    columns = torch.arange(width, device=feature.device) * stride < sizes[:, 1:]
    valid = (rows[:, None, :, None] & columns[:, None, None, :]).to(feature.dtype)
    return (feature * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3))


def score_from_map(forgery_map: Tensor, rule: str) -> float:
    """Make an image's score of its map.

    Args:
        forgery_map: float H×W in [0, 1].
        rule: "mean", "max", or "top_pixels", the mean of the highest 1 %.

    Raises:
        ConfigError: another rule.
    """
    if rule == "mean":
        return float(forgery_map.mean())
    if rule == "max":
        return float(forgery_map.max())
    if rule == "top_pixels":
        return float(forgery_map.flatten().topk(max(1, forgery_map.numel() // 100)).values.mean())
    raise ConfigError(f"TEST.IMAGE_SCORE is '{rule}': it must be mean, max or top_pixels")
