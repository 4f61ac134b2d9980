"""The complementary boundary generator: how likely each frame is where a forged segment starts, or ends.

Shapes: `B` clips, `C` channels of the features, `T` frames (a multiple of 4).

Source: BSN++ (Su et al. 2021), a U-Net++ in time, as BA-TFD+ (Cai et al. 2023) uses it. Names of parameters are those
of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Curves = tuple[Tensor, Tensor]
"""How likely a segment starts, and ends, in each frame; float B×T in [0, 1] both."""

_WIDTH = 512


@dataclass(frozen=True, kw_only=True)
class BoundaryOutputs:
    """What the generators of both modalities give for a batch.

    Attributes:
        curves: {"fusion", "video" or "audio": start and end}.
        hidden: {"video" or "audio": float B×1536×T}, what the curves are made of.
    """

    curves: dict[str, Curves]
    hidden: dict[str, Tensor]


class BoundaryCurves(nn.Module):
    """A nested U-Net of depth 3."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv0_0 = _Unit(features, _WIDTH)
        self.conv1_0 = _Unit(_WIDTH, _WIDTH)
        self.conv2_0 = _Unit(_WIDTH, _WIDTH)
        self.conv0_1 = _Unit(2 * _WIDTH, _WIDTH)
        self.conv1_1 = _Unit(2 * _WIDTH, _WIDTH)
        self.conv0_2 = _Unit(3 * _WIDTH, _WIDTH)
        self.final = nn.Conv1d(3 * _WIDTH, 2, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the curves and what they are made of.

        Args:
            features: B×C×T.

        Returns:
            start and end, B×T in [0, 1], and hidden features, B×1536×T.
        """
        x00 = self.conv0_0(features)
        x10 = self.conv1_0(F.max_pool1d(x00, 2))
        x01 = self.conv0_1(torch.cat([x00, _doubled(x10)], dim=1))
        x20 = self.conv2_0(F.max_pool1d(x10, 2))
        x11 = self.conv1_1(torch.cat([x10, _doubled(x20)], dim=1))
        x02 = self.conv0_2(torch.cat([x00, x01, _doubled(x11)], dim=1))
        hidden = torch.cat([x00, x01, x02], dim=1)
        curves = self.final(hidden).float().sigmoid()
        return curves[:, 1], curves[:, 0], hidden


class _Unit(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(before, after, 3, padding=1), nn.BatchNorm1d(after), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def boundary_weights(forward: Curves, backward: Curves) -> Curves:
    """Combine the curves of a clip with those of the clip played backward, whose starts are ends."""
    (start, end), (back_start, back_end) = forward, backward
    return (start * torch.flip(back_end, dims=(1,))).sqrt(), (end * torch.flip(back_start, dims=(1,))).sqrt()


def weighted_candidates(candidates: NDArray[np.float64], weights: Curves, clip: int) -> NDArray[np.float64]:
    """Multiply the confidence of a clip's candidates by how likely they start and end where they do.

    Args:
        candidates: float K×3, [confidence, start, end] in frames.
        weights: of `boundary_weights`.
        clip: its number in the batch.

    Returns:
        the same, with other confidences. A candidate that ends with the network's last frame is taken to end in it.
    """
    start, end = (curve[clip].float().cpu().numpy() for curve in weights)
    first, last = candidates[:, 1:].astype(np.int64).T
    return np.column_stack([candidates[:, 0] * start[first] * end[last.clip(max=len(end) - 1)], candidates[:, 1:]])
