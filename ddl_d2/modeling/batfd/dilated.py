"""Dilated branches in time: the reading of "ERF" (extended receptive field) that widens what a feature sees.

Shapes: `B` clips, `F` features, `T` frames.

The paper (arXiv 2508.17282) says only that ERF models long-range dependencies in the audio-visual input; this is this
project's reading of it, see docs/reproduce.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedBranches(nn.Module):
    """Adds to each frame what several convolutions of different dilation see around it.

    At the start it adds nothing (`gamma` is 0): weights of a model without it load, and give what they gave.
    """

    def __init__(self, *, features: int, dilations: list[int], width: int = 64) -> None:
        """Make the branches.

        Args:
            features: F.
            dilations: of the branches, frames.
            width: channels of a branch.
        """
        super().__init__()
        self.branches = nn.ModuleList(_Branch(features, width, dilation) for dilation in dilations)
        self.merge = nn.Conv1d(width * len(dilations), features, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return B×F×T of B×F×T."""
        return x + self.gamma * self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))


class _Branch(nn.Module):
    def __init__(self, features: int, width: int, dilation: int) -> None:
        super().__init__()
        self.reduce = nn.Conv1d(features, width, 1)
        self.context = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.context(self.reduce(x))
        return F.gelu(self.norm(seen.transpose(1, 2))).transpose(1, 2)
