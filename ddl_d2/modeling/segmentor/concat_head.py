"""A head on maps that are brought to one size and put beside each other.

Sources: HRNet's and SegFormer's heads as mmsegmentation 1.2 has them, and IML-ViT's (arXiv 2307.14863). SegFormer's own
release has linear layers without norm or rectifier, to 768 channels, instead.

Shapes: `B` images, `C` channels, `K` classes, `h, w` places of the finest map.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ddl_d2.modeling.segmentor.blocks import by_stride, classifier, convolution, dropout, head_arguments, resized


@SEM_SEG_HEADS_REGISTRY.register()
class ConcatHead(nn.Module):
    """Maps, each brought to `project_dim` channels or as it is, side by side; 1 × 1 to `fuse_dim`; 1 × 1 to K.

    The fusion, a 1 × 1 convolution, and the resizing can change places: each map meets its columns of the fusion's
    weights at its own size, and what is resized has `fuse_dim` channels. That is the same up to rounding, and cheaper.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        in_features: list[str],
        num_classes: int,
        project_dim: int = 0,
        fuse_dim: int = 256,
        norm: str = "BN",
        rectify: bool = True,
        dropout_rate: float = 0.1,
        channel_dropout: bool = True,
    ) -> None:
        """Make the convolutions.

        Args:
            input_shape: the encoder's features.
            in_features: names of those that are read.
            num_classes: K.
            project_dim: channels to which each map is brought first; 0: they stay as they are.
            fuse_dim: channels of the fused map; 0: as many as come in.
            norm: of the convolutions, by Detectron2's name.
            rectify: whether the fusion has a rectifier (IML-ViT's has none, but a bias).
            dropout_rate: before the last layer.
            channel_dropout: of whole channels, not of single values.

        Raises:
            ConfigError: the encoder lacks a feature.
        """
        super().__init__()
        self.in_features = by_stride(in_features, input_shape, "MODEL.SEM_SEG_HEAD.IN_FEATURES")
        channels = [input_shape[name].channels for name in self.in_features]
        self.project = nn.ModuleList(
            convolution(c, project_dim, kernel=1, norm=norm) for c in (channels if project_dim else [])
        )
        self.widths = [project_dim or c for c in channels]
        fuse_dim = fuse_dim or sum(self.widths)
        self.fuse = convolution(sum(self.widths), fuse_dim, kernel=1, norm=norm, rectify=rectify)
        self.dropout = dropout(dropout_rate, channels=channel_dropout)
        self.predict = classifier(fuse_dim, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SEM_SEG_HEAD and MODEL.SEGMENTOR."""
        segmentor = cfg.MODEL.SEGMENTOR
        return head_arguments(cfg, input_shape) | {
            "project_dim": segmentor.PROJECT_DIM,
            "fuse_dim": segmentor.FUSE_DIM,
            "rectify": segmentor.RECTIFY,
        }

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×·×·} into logits B×K×h×w."""
        maps = [features[name] for name in self.in_features]
        if len(self.project):
            maps = [layer(x) for layer, x in zip(self.project, maps, strict=True)]
        return self.predict(self.dropout(self._fused(maps)))

    def _fused(self, maps: list[Tensor]) -> Tensor:
        columns = self.fuse.weight.split(self.widths, dim=1)
        finest, *others = (F.conv2d(x, weight) for x, weight in zip(maps, columns, strict=True))
        fused = finest + sum(resized(x, finest) for x in others)
        if self.fuse.bias is not None:
            fused = fused + self.fuse.bias[:, None, None]
        for step in (self.fuse.norm, self.fuse.activation):
            if step is not None:
                fused = step(fused)
        return fused
