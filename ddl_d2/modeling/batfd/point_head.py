"""A head that finds segments without a map: from each step of a pyramid, how far a segment reaches to both sides.

Shapes: `B` clips, `C` channels, `T` steps of the finest level; `P` points, the steps of all levels together.

Source: ActionFormer (Zhang et al. 2022) and UMMAFormer (Zhang et al. 2023). Names of parameters are those of
UMMAFormer's checkpoints.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from ddl_d2.modeling.batfd.masked_layers import ChannelNorm, MaskedConv
from ddl_d2.modeling.batfd.umma import LEVELS
from ddl_d2.utils.segments import overlaps

_LARGE = 1e4
_RANGES = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, _LARGE))
_RADIUS = 1.5
_SMOOTHING = 0.1
_PRIOR = 0.01
_OFFSET_WEIGHT = 2.0
_LOWEST_SCORE, _SHORTEST, _MOST = 0.001, 0.05, 2000
_VOTING_OVERLAP = 0.9
_KEPT_SHARE, _FIRST_POSITIVES = 0.9, 200.0


class PointHead(nn.Module):
    """A feature pyramid network, and of each of its steps the logit of "forged" and the distances to both ends."""

    positives: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.neck = FeaturePyramid(channels)
        self.cls_head, self.reg_head = _ClassHead(channels), _OffsetHead(channels)
        # How many positive points a batch has, averaged over batches.
        self.register_buffer("positives", torch.tensor(_FIRST_POSITIVES), persistent=False)

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits B×P, and distances in strides of their level, B×P×2, from the levels of a pyramid."""
        levels = self.neck(levels, masks)
        logits = [self.cls_head(x, mask)[:, 0] for x, mask in zip(levels, masks, strict=True)]
        offsets = [
            self.reg_head(x, mask, level).transpose(1, 2)
            for level, (x, mask) in enumerate(zip(levels, masks, strict=True))
        ]
        return torch.cat(logits, dim=1), torch.cat(offsets, dim=1)

    def losses(self, logits: Tensor, offsets: Tensor, targets: list[tuple[Tensor, Tensor]], valid: Tensor) -> Tensor:
        """Return the loss of clips whose segments are known.

        Args:
            logits: K×P.
            offsets: K×P×2.
            targets: of `point_targets`, for each clip.
            valid: bool K×P, not padding.

        Returns:
            Focal loss of the class plus twice the distance-IoU loss of the offsets, over a running average of the
            number of positive points; 0 where there is no clip.
        """
        if not targets:
            return 0 * (logits.sum() + offsets.sum())
        forged = torch.stack([found for found, _ in targets]).to(logits.device)
        positive = (forged > 0) & valid
        if self.training:
            count = positive.sum().clamp(min=1)
            self.positives.mul_(_KEPT_SHARE).add_((1 - _KEPT_SHARE) * count)
        smooth = forged * (1 - _SMOOTHING) + _SMOOTHING / 2
        found = sigmoid_focal_loss(logits.float()[valid], smooth[valid], reduction="sum")
        wanted = torch.stack([offset for _, offset in targets]).to(logits.device)[positive]
        return (found + _OFFSET_WEIGHT * distance_iou_loss(offsets.float()[positive], wanted)) / self.positives


class FeaturePyramid(nn.Module):
    """Brings what coarse levels know to finer ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(MaskedConv(channels, channels, 1, bias=False) for _ in range(LEVELS))
        self.fpn_convs = nn.ModuleList(
            MaskedConv(channels, channels, 3, groups=channels, bias=False) for _ in range(LEVELS)
        )
        self.fpn_norms = nn.ModuleList(ChannelNorm(channels) for _ in range(LEVELS))

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Return levels of the same sizes."""
        found = [conv(x, mask)[0] for conv, x, mask in zip(self.lateral_convs, levels, masks, strict=True)]
        for i in range(len(found) - 1, 0, -1):
            found[i - 1] = found[i - 1] + found[i].repeat_interleave(2, dim=2)
        return [
            norm(conv(x, mask)[0])
            for conv, norm, x, mask in zip(self.fpn_convs, self.fpn_norms, found, masks, strict=True)
        ]


class _Shared(nn.Module):
    """Two convolutions that all levels share."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.ModuleList(MaskedConv(channels, channels, 3, bias=False) for _ in range(2))
        self.norm = nn.ModuleList(ChannelNorm(channels) for _ in range(2))

    def hidden(self, x: Tensor, mask: Tensor) -> Tensor:
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = F.relu(norm(conv(x, mask)[0]))
        return x


class _ClassHead(_Shared):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.cls_head = MaskedConv(channels, 1, 3)
        nn.init.constant_(self.cls_head.conv.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.cls_head(self.hidden(x, mask), mask)[0]


class _OffsetHead(_Shared):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.scale = nn.ModuleList(_Scale() for _ in range(LEVELS))
        self.offset_head = MaskedConv(channels, 2, 3)

    def forward(self, x: Tensor, mask: Tensor, level: int) -> Tensor:
        return F.relu(self.scale[level](self.offset_head(self.hidden(x, mask), mask)[0]))


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def level_points(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places of all points in steps of the finest level, their strides, and the level of each; P."""
    places, strides, levels = [], [], []
    for level in range(LEVELS):
        stride = 2**level
        places.append(torch.arange(0, steps, stride, dtype=torch.float32))
        strides.append(torch.full((steps // stride,), float(stride)))
        levels.append(torch.full((steps // stride,), level))
    return torch.cat(places), torch.cat(strides), torch.cat(levels)


def point_targets(segments: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Say which points find a segment, and how far it reaches from them.

    A point finds a segment if it lies in it, within 1.5 strides of its middle, and the farther end is as far as the
    point's level is for; of several segments the shortest.

    Args:
        segments: float N×2, in steps of the finest level.
        steps: T.

    Returns:
        float P, 1 for a point that finds one, and float P×2, the distances to its ends in strides.
    """
    places, strides, levels = level_points(steps)
    if not len(segments):
        return torch.zeros(len(places)), torch.zeros(len(places), 2)
    low, high = torch.tensor(_RANGES)[levels].T
    start, end = segments.float().T
    distances = torch.stack([places[:, None] - start, end - places[:, None]], dim=2)  # P × N × 2
    middle = (start + end) / 2
    reach = strides[:, None] * _RADIUS
    inside = torch.minimum(
        places[:, None] - torch.maximum(middle - reach, start), torch.minimum(middle + reach, end) - places[:, None]
    )
    farther = distances.amax(dim=2)
    fits = (inside > 0) & (farther >= low[:, None]) & (farther <= high[:, None])
    length = torch.where(fits, end - start, torch.inf)
    chosen = length.argmin(dim=1)
    offsets = distances[torch.arange(len(places)), chosen] / strides[:, None]
    found = fits.any(dim=1).float()
    return found, offsets


def distance_iou_loss(offsets: Tensor, wanted: Tensor) -> Tensor:
    """Return the sum over points of 1 - IoU + (distance of the middles / hull)²; both K×2, distances to the ends."""
    shared = torch.minimum(offsets, wanted).sum(dim=1)
    union = offsets.sum(dim=1) + wanted.sum(dim=1) - shared
    hull = torch.maximum(offsets, wanted).sum(dim=1).clamp(min=1e-8)
    apart = ((offsets[:, 1] - offsets[:, 0]) - (wanted[:, 1] - wanted[:, 0])) / 2
    return (1 - shared / union.clamp(min=1e-8) + (apart / hull).square()).sum()


def candidates_of_points(logits: Tensor, offsets: Tensor, frames: int) -> NDArray[np.float64]:
    """List the segments that the points of one clip see, surest first.

    Args:
        logits: P.
        offsets: P×2, in strides.
        frames: of the clip, in steps of the finest level; segments are cut to them.

    Returns:
        float64 K×3, [confidence, start, end] in those steps, K at most 2000.
    """
    places, strides, _ = level_points(round(len(logits) / sum(2.0**-level for level in range(LEVELS))))
    scores = logits.float().sigmoid().cpu()
    reach = offsets.float().cpu() * strides[:, None]
    start, end = (places - reach[:, 0]).clamp(0, frames), (places + reach[:, 1]).clamp(0, frames)
    fits = (places < frames) & (scores > _LOWEST_SCORE) & (end - start > _SHORTEST)
    found = torch.stack([scores, start, end], dim=1)[fits]
    return found[found[:, 0].argsort(descending=True, stable=True)][:_MOST].numpy().astype(np.float64)


def voted(segments: NDArray[np.float64], candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move each segment to the mean of the candidates that overlap it by 0.9, weighed by confidence times overlap."""
    moved = segments.copy()
    for segment in moved:
        overlap = overlaps(candidates[:, 1:], segment[1:])
        weight = candidates[:, 0] * overlap * (overlap >= _VOTING_OVERLAP)
        if weight.sum() > 0:
            segment[1:] = weight @ candidates[:, 1:] / weight.sum()
    return moved
