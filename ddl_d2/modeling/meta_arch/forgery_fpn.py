"""The release's network: a feature pyramid that localizes, and pooled features that detect.

Small enough for one CPU core; trained without forged photographs by INPUT.FACE_SWAP.

Shapes: `B` images, `C` channels, `H, W` pixels of the padded batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.detection import DetectsByImageHead
from ddl_d2.modeling.heads import ImageHead, ImageSizes
from ddl_d2.modeling.losses import map_bce, mean_of_known
from ddl_d2.modeling.preprocessing import Truth, is_known, map_weight, padded_truth
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part
from ddl_d2.utils.transfer import on_device


class PyramidDecoder(nn.Module):
    """Decoder of maps of several strides into one map of logits: lateral 1×1, summed from the coarsest down."""

    def __init__(self, *, input_shape: dict[str, ShapeSpec], in_features: list[str], channels: int) -> None:
        """Make the convolutions.

        Args:
            input_shape: the encoder's outputs.
            in_features: names of those that are read, the finest first.
            channels: of the pyramid.
        """
        super().__init__()
        self.in_features = in_features
        self.lateral = nn.ModuleList(nn.Conv2d(input_shape[name].channels, channels, 1) for name in in_features)
        self.smooth = nn.ModuleList(_smooth(channels) for _ in in_features)
        self.predictor = nn.Conv2d(channels, 1, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×h×w} into logits B×h×w at the finest of them."""
        summed: Tensor | None = None
        for name, lateral, smooth in reversed(list(zip(self.in_features, self.lateral, self.smooth, strict=True))):
            level = lateral(features[name])
            if summed is not None:
                level = level + F.interpolate(summed, size=level.shape[-2:], mode="bilinear", align_corners=False)
            summed = smooth(level)
        return self.predictor(summed)[:, 0]


def _smooth(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.GroupNorm(8, channels),
        nn.ReLU(inplace=True),
    )


@META_ARCH_REGISTRY.register()
class ForgeryFPN(DetectsByImageHead, ForgerySystem):
    """Detector and localizer in one.

    Losses: `loss_det` (real or fake), `loss_map` (pixels), and where their weights are above 0 `loss_coarse` (a map of
    stride 8 straight from the encoder) and `loss_rank` (rows 2i and 2i + 1 are a real image and its forgery).
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: PyramidDecoder,
        image_head: ImageHead,
        detection_weight: float,
        localization_weight: float,
        coarse_weight: float,
        rank_weight: float,
        real_map_weight: float,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: the encoder.
            decoder: gives the map.
            image_head: gives the image's logit.
            detection_weight: of `loss_det`.
            localization_weight: of `loss_map`.
            coarse_weight: of `loss_coarse`.
            rank_weight: of `loss_rank`.
            real_map_weight: of real images in `loss_map`; at 0 the map says where an image is forged *if* it is.
            options: what every system takes.
        """
        super().__init__(backbone=backbone, options=options)
        shapes: dict[str, ShapeSpec] = backbone.output_shape()
        self.decoder = decoder
        self.image_head = image_head
        self.coarse = nn.Conv2d(shapes["res3"].channels + shapes["res4"].channels, 1, 1) if coarse_weight else None
        self.detection_weight, self.localization_weight = detection_weight, localization_weight
        self.coarse_weight, self.rank_weight, self.real_map_weight = coarse_weight, rank_weight, real_map_weight
        self.size_divisibility = max(backbone.size_divisibility, 32)
        self.use_fast_layers()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.FORGERY_FPN, SEM_SEG_HEAD, DETECTION and LOCALIZATION."""
        detect, localize, fpn = cfg.MODEL.DETECTION, cfg.MODEL.LOCALIZATION, cfg.MODEL.FORGERY_FPN
        if not (detect.ENABLED and localize.ENABLED):
            raise ConfigError(
                "ForgeryFPN always detects and localizes: leave MODEL.DETECTION.ENABLED and MODEL.LOCALIZATION.ENABLED "
                "True, and set one LOSS_WEIGHT to 0 to train one half only"
            )
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "backbone": backbone,
            "decoder": PyramidDecoder(input_shape=shapes, in_features=head.IN_FEATURES, channels=head.CONVS_DIM),
            "image_head": ImageHead(in_features=detect.IN_FEATURES, input_shape=shapes, dropout=fpn.DROPOUT),
            "detection_weight": detect.LOSS_WEIGHT,
            "localization_weight": localize.LOSS_WEIGHT,
            "coarse_weight": fpn.COARSE_WEIGHT,
            "rank_weight": fpn.RANK_WEIGHT,
            "real_map_weight": fpn.REAL_MAP_WEIGHT,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake`, and `soft_mask` or else `forgery_mask`."""
        images, features = self.encode_rows(batched_inputs)
        logits = self.image_logits(features, images.image_sizes)
        losses = {"loss_det": self.detection_loss(logits, batched_inputs)}
        if self.rank_weight:
            losses["loss_rank"] = self.rank_weight * F.softplus(logits[0::2] - logits[1::2]).mean()
        truth = padded_truth(batched_inputs, images)
        weight = partial(map_weight, real_weight=self.real_map_weight)
        weights = on_device([weight(row) for row in batched_inputs], self.device)
        total = count_per_part(batched_inputs, weight)
        maps = self.decoder(features)
        losses["loss_map"] = self.localization_weight * _weighted_bce(maps, truth, weights, total)
        if self.coarse is not None:
            finer = features["res3"]
            coarser = F.interpolate(features["res4"], size=finer.shape[-2:], mode="bilinear", align_corners=False)
            coarse = self.coarse(torch.cat([finer, coarser], 1))[:, 0]
            total = count_per_part(batched_inputs, is_known)
            losses["loss_coarse"] = self.coarse_weight * _weighted_bce(coarse, truth, truth.known, total)
        return losses

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict the score by the image head and the map by the decoder."""
        features = self.encode(images)
        maps = self.decoder(features)[:, None].float()
        maps = F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return Probabilities(self.image_logits(features, sizes).sigmoid(), maps[:, 0].sigmoid())


def _weighted_bce(logits: Tensor, truth: Truth, weights: Tensor, total: float) -> Tensor:
    """Compute the BCE of maps B×h×w and the truth, pooled to their size; `weights`, B, sum to `total`."""
    size = (logits.shape[-2], logits.shape[-1])
    pooled = F.adaptive_avg_pool2d(truth.maps[:, None], size)[:, 0]
    counted = F.adaptive_avg_pool2d(truth.valid[:, None].float(), size)[:, 0] > 0
    by_image = map_bce(logits.float(), pooled, counted)
    return mean_of_known(by_image, weights, total)
