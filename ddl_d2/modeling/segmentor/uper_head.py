"""UPerNet's decoder and the auxiliary head beside it.

Source: "Unified Perceptual Parsing for Scene Understanding" (ECCV 2018), with the layers that mmsegmentation 1.2 has.

Shapes: `B` images, `C` channels, `K` classes, `h, w` places of the finest map.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.grid import grid_average
from ddl_d2.modeling.segmentor.blocks import by_stride, classifier, convolution, dropout, head_arguments, resized

_POOLS = (1, 2, 3, 6)


@SEM_SEG_HEADS_REGISTRY.register()
class UPerHead(nn.Module):
    """Pyramid pooling of the coarsest map, sums from there down, 3 × 3 each, all fused at the size of the finest."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        in_features: list[str],
        num_classes: int,
        channels: int = 512,
        norm: str = "BN",
        dropout_rate: float = 0.1,
        channel_dropout: bool = True,
    ) -> None:
        """Make the convolutions.

        Args:
            input_shape: the encoder's features.
            in_features: names of those that are read.
            num_classes: K.
            channels: of every map inside.
            norm: of the convolutions, by Detectron2's name.
            dropout_rate: before the last layer.
            channel_dropout: of whole channels, not of single values.

        Raises:
            ConfigError: the encoder lacks a feature.
        """
        super().__init__()
        self.in_features = by_stride(in_features, input_shape, "MODEL.SEM_SEG_HEAD.IN_FEATURES")
        *finer, coarsest = (input_shape[name].channels for name in self.in_features)
        self.pooled = nn.ModuleList(convolution(coarsest, channels, kernel=1, norm=norm) for _ in _POOLS)
        self.top = convolution(coarsest + len(_POOLS) * channels, channels, kernel=3, norm=norm)
        self.laterals = nn.ModuleList(convolution(c, channels, kernel=1, norm=norm) for c in finer)
        self.outputs = nn.ModuleList(convolution(channels, channels, kernel=3, norm=norm) for _ in finer)
        self.fuse = convolution((len(finer) + 1) * channels, channels, kernel=3, norm=norm)
        self.dropout = dropout(dropout_rate, channels=channel_dropout)
        self.predict = classifier(channels, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SEM_SEG_HEAD and MODEL.SEGMENTOR."""
        return head_arguments(cfg, input_shape) | {"channels": cfg.MODEL.SEGMENTOR.FUSE_DIM}

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×·×·} into logits B×K×h×w.

        Raises:
            ConfigError: in training, one image whose pool of 1 × 1 would be normalized by itself alone.
        """
        *finer, coarsest = (features[name] for name in self.in_features)
        if self.training and len(coarsest) == 1 and isinstance(self.pooled[0].norm, nn.BatchNorm2d):
            raise ConfigError(
                "UPerHead's batch norms cannot learn from one image a process: raise SOLVER.IMS_PER_BATCH, or set "
                "MODEL.SEM_SEG_HEAD.NORM to SyncBN (several GPUs) or GN"
            )
        levels = [self._pyramid_pooled(coarsest)]
        for x, lateral in zip(reversed(finer), reversed(self.laterals), strict=True):
            x = lateral(x)
            levels.insert(0, x + resized(levels[0], x))
        *sums, top = levels
        finest, *others = (*(layer(x) for layer, x in zip(self.outputs, sums, strict=True)), top)
        fused = self.fuse(torch.cat([finest, *(resized(x, finest) for x in others)], dim=1))
        return self.predict(self.dropout(fused))

    def _pyramid_pooled(self, x: Tensor) -> Tensor:
        pools = [layer(grid_average(x, side)) for layer, side in zip(self.pooled, _POOLS, strict=True)]
        return self.top(torch.cat([x, *(resized(pool, x) for pool in pools)], dim=1))


class AuxiliaryHead(nn.Module):
    """A second map of logits from one feature, in training only: 3 × 3, dropout of channels, 1 × 1."""

    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        in_feature: str,
        num_classes: int,
        channels: int = 256,
        norm: str = "BN",
        dropout_rate: float = 0.1,
    ) -> None:
        """Make the convolutions.

        Args:
            input_shape: the encoder's features.
            in_feature: name of the one that is read.
            num_classes: K.
            channels: of the map inside.
            norm: of the first convolution, by Detectron2's name.
            dropout_rate: of channels, before the last layer.

        Raises:
            ConfigError: the encoder lacks the feature.
        """
        super().__init__()
        (self.in_feature,) = by_stride([in_feature], input_shape, "MODEL.SEGMENTOR.AUXILIARY.IN_FEATURE")
        self.fuse = convolution(input_shape[in_feature].channels, channels, kernel=3, norm=norm)
        self.dropout = dropout(dropout_rate, channels=True)
        self.predict = classifier(channels, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×h×w} into logits B×K×h×w at the size of the feature that is read."""
        return self.predict(self.dropout(self.fuse(features[self.in_feature])))
