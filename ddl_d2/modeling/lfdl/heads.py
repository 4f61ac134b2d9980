"""The heads of LFDL on the maps of its two streams.

Source: "Locate and Verify" (Shuai et al., ACM MM 2023). The pixel head is that of an entry to the IJCAI 2025 challenge
on detection and localization which extends it; "released" below is that entry's code.

Every head has two outputs, real (authentic) and fake (forged), under a softmax. Where only the second matters, a head
returns their difference, the logit of "forged": its sigmoid is that softmax.

Shapes: `B` images, `C` channels, `h, w` cells of the grid (the places of stage 5), `k` places of a finer stage along
a cell's side.
"""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.grid import grid_max_pool, to_cells
from ddl_d2.modeling.lfdl.two_stream import READINGS


class PatchFusion(nn.Module):
    """Multi-scale patch feature fusion (MPFF, eq. 6): how a cell's places resemble the cell, at each stage.

    All stages are projected to `dim` channels. Each place x of a finer stage is compared with the vector y of stage 5
    at its cell: tanh of their mean product over channels (reading "paper"), or the sum over channels of tanh of their
    products ("released"). The k² numbers of a cell become channels, beside those of stage 5 itself: for Xception
    64 + 16 + 4 + 1 + 1 + 728 = 814.
    """

    def __init__(self, *, input_shapes: list[ShapeSpec], dim: int = 512, reading: str = "paper") -> None:
        """Make the projections.

        Args:
            input_shapes: of the rgb stream's stages, finest first; each stride is a whole multiple of the one before.
            dim: channels of the projections, 512 in the paper.
            reading: "paper" or "released".

        Raises:
            ConfigError: an unknown reading.
        """
        super().__init__()
        if reading not in READINGS:
            raise ConfigError(f"MODEL.LFDL.MPFF is '{reading}': it must be {' or '.join(READINGS)}")
        *finer, last = input_shapes
        self.released = reading == "released"
        self.sides = [last.stride // shape.stride for shape in finer]
        self.out_channels = sum(side**2 for side in self.sides) + last.channels
        self.projections = nn.ModuleList(_conv_norm_relu(shape.channels, dim, 1) for shape in input_shapes)

    def project(self, features: list[Tensor]) -> list[Tensor]:
        """Project every stage to `dim` channels."""
        return [projection(x) for projection, x in zip(self.projections, features, strict=True)]

    def forward(self, projected: list[Tensor], last: Tensor) -> Tensor:
        """Fuse what `project` gives with stage 5 itself, B×C×h×w; returns B×`out_channels`×h×w."""
        *finer, vectors = projected
        similarities = [self._similarities(x, vectors, side) for x, side in zip(finer, self.sides, strict=True)]
        return torch.cat([*similarities, last], dim=1)

    def _similarities(self, x: Tensor, vectors: Tensor, side: int) -> Tensor:
        """Compare a stage's places with their cells; returns B×k²×h×w, a cell's places row by row."""
        height, width = vectors.shape[-2:]
        of_cells = vectors.permute(0, 2, 3, 1)[:, :, None, :, None]
        products = to_cells(x, (height, width), side) * of_cells
        similarity = products.tanh().sum(dim=-1) if self.released else products.mean(dim=-1).tanh()
        return similarity.permute(0, 2, 4, 1, 3).flatten(1, 2)


class PatchHead(nn.Module):
    """Head that says of each cell whether it holds anything forged."""

    def __init__(self, *, in_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), nn.Conv2d(in_channels, 2, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, fp32 B×h×w, of `PatchFusion`'s output, B×C×h×w."""
        return _difference(self.layers(x))


class PixelHead(nn.Module):
    """Head that gives a map at the grid's resolution, to be enlarged to the image's."""

    def __init__(self, *, in_channels: int, dims: list[int]) -> None:
        """Make the layers.

        Args:
            in_channels: C.
            dims: channels of the two hidden layers, [256, 64] in the released code.
        """
        super().__init__()
        first, second = dims
        self.layers = nn.Sequential(
            _conv_norm_relu(in_channels, first, 3),
            _conv_norm_relu(first, second, 3),
            nn.Conv2d(second, 2, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, fp32 B×h×w, of stage 5, B×C×h×w."""
        return _difference(self.layers(x))


class FusionClassifier(nn.Module):
    """Classifier on the noise stream: its last stage and its earlier ones, joined by a Hadamard product.

    The earlier maps are max-pooled to the grid of the last; at every place both are brought to `dims[0]` channels and
    multiplied (low-rank bilinear pooling, Kim et al. 2017: tanh, dropout, a linear layer to `dims[1]`); then
    normalization, ReLU, average over places, dropout and a linear layer.
    """

    def __init__(self, *, in_channels: list[int], last_channels: int, dims: list[int], dropout: float = 0.5) -> None:
        """Make the layers.

        Args:
            in_channels: C of each earlier map.
            last_channels: C of the last map.
            dims: channels where the maps are multiplied, and after; [2048, 4096] in the released code.
            dropout: the probability of both dropouts.
        """
        super().__init__()
        hidden, out = dims
        self.earlier = nn.Linear(sum(in_channels), hidden)
        self.last = nn.Linear(last_channels, hidden)
        self.joined = nn.Linear(hidden, out)
        self.norm = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(out, 2)

    def forward(self, earlier: list[Tensor], last: Tensor) -> Tensor:
        """Return the logits (real, fake), B×2, of the earlier maps, B×C×·×·, and the last one, B×C×h×w."""
        pooled = torch.cat([grid_max_pool(x, (last.shape[-2], last.shape[-1])) for x in earlier], dim=1)
        joined = self.earlier(_channels_last(pooled)) * self.last(_channels_last(last))
        joined = self.joined(self.dropout(joined.tanh()))
        rectified = self.norm(joined.permute(0, 3, 1, 2)).relu()
        return self.classify(self.dropout(rectified.mean(dim=(2, 3))))


def _conv_norm_relu(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _difference(logits: Tensor) -> Tensor:
    """Make one logit of "forged", fp32 B×h×w, of the logits (authentic, forged), B×2×h×w."""
    return logits[:, 1].float() - logits[:, 0].float()
