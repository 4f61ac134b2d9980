"""Heads on a backbone: the query decoder that localizes, and the image head that detects.

Shapes: `B` pictures, `Q` queries, `C` channels, `K` classes, `H, W` pixels of the mask features (stride 4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ddl_d2.config import ConfigError
from ddl_d2.modeling.pixel_decoder import MSDeformAttnPixelDecoder
from ddl_d2.modeling.query_decoder import QueryDecoder, QueryPredictions


@SEM_SEG_HEADS_REGISTRY.register()
class QueryDecoderHead(nn.Module):
    """Pixel decoder and query decoder; `num_classes` is THE number of classes."""

    @configurable
    def __init__(self, *, num_classes: int, pixel_decoder: nn.Module, predictor: nn.Module):
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        if head.NUM_CLASSES not in (1, 2):
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {head.NUM_CLASSES}: it must be 1 (forged) or 2 (authentic, forged)"
            )
        pixel_decoder = MSDeformAttnPixelDecoder(
            input_shape=input_shape,
            in_features=head.IN_FEATURES,
            deformable_in_features=head.DEFORMABLE_IN_FEATURES,
            conv_dim=head.CONVS_DIM,
            mask_dim=head.MASK_DIM,
            norm=head.NORM,
            num_layers=head.TRANSFORMER_ENC_LAYERS,
            num_heads=head.TRANSFORMER_ENC_NHEADS,
            num_points=head.TRANSFORMER_ENC_POINTS,
            dim_feedforward=head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
        )
        predictor = QueryDecoder(
            in_channels=head.CONVS_DIM,
            hidden_dim=former.HIDDEN_DIM,
            mask_dim=head.MASK_DIM,
            num_classes=head.NUM_CLASSES,
            num_levels=len(pixel_decoder.deformable_features),
            num_queries=former.NUM_OBJECT_QUERIES,
            num_heads=former.NHEADS,
            dim_feedforward=former.DIM_FEEDFORWARD,
            num_layers=former.DEC_LAYERS,
        )
        return {"num_classes": head.NUM_CLASSES, "pixel_decoder": pixel_decoder, "predictor": predictor}

    def predict(self, features: dict[str, Tensor]) -> QueryPredictions:
        """All prediction sets, masks unpainted: what training needs."""
        mask_features, levels = self.pixel_decoder(features)
        return self.predictor(levels, mask_features)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The last set, painted: `pred_logits` B×Q×(K+1), `pred_masks` B×Q×H×W (logits)."""
        predictions = self.predict(features)
        return {"pred_logits": predictions.logits[-1], "pred_masks": predictions.masks()}


class ImageHead(nn.Module):
    """Is the picture forged? One logit from the average of a feature map over the unpadded area.

    Padding is left out, or pictures of different shape in one batch would shift each other's score.
    """

    def __init__(self, *, in_features: list[str], input_shape: dict[str, ShapeSpec]):
        super().__init__()
        self.in_features = in_features
        self.strides = [input_shape[name].stride for name in in_features]
        self.linear = nn.Linear(sum(input_shape[name].channels for name in in_features), 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: dict[str, Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """{name: B×C×h×w}, unpadded (height, width) of each picture -> logits B, fp32."""
        pooled = [
            valid_average(features[name].float(), image_sizes, stride)
            for name, stride in zip(self.in_features, self.strides, strict=True)
        ]
        with torch.autocast(device_type=pooled[0].device.type, enabled=False):
            return self.linear(torch.cat(pooled, dim=1)).squeeze(1)


def valid_average(feature: Tensor, image_sizes: list[tuple[int, int]], stride: int) -> Tensor:
    """Mean of B×C×h×w over the cells that hold any of the picture (height, width) -> B×C."""
    _, _, height, width = feature.shape
    if all(math.ceil(h / stride) == height and math.ceil(w / stride) == width for h, w in image_sizes):
        return feature.mean(dim=(2, 3))
    sizes = torch.tensor(image_sizes, device=feature.device)
    rows = torch.arange(height, device=feature.device) * stride < sizes[:, :1]
    columns = torch.arange(width, device=feature.device) * stride < sizes[:, 1:]
    valid = (rows[:, None, :, None] & columns[:, None, None, :]).to(feature.dtype)
    return (feature * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3))


def score_from_map(forgery_map: Tensor, rule: str) -> float:
    """A picture's score where no image head gives one: "mean", "max" or "topk" (mean of the highest 1 %) of its map."""
    if rule == "mean":
        return float(forgery_map.mean())
    if rule == "max":
        return float(forgery_map.max())
    if rule == "topk":
        return float(forgery_map.flatten().topk(max(1, forgery_map.numel() // 100)).values.mean())
    raise ConfigError(f"TEST.IMAGE_SCORE is '{rule}': it must be mean, max or topk")
