"""Maps of tokens made finer or coarser by a linear layer over patches, as Swin networks do.

Shapes: `B` images, `h, w` tokens, `C` channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchExpand(nn.Module):
    """Each token becomes `factor` × `factor` tokens: B×h×w×in -> B×fh×fw×out (Swin-Unet's patch expanding).

    The linear layer runs at the coarse resolution, in -> factor² · out, and its output is rearranged.
    """

    def __init__(self, *, in_channels: int, out_channels: int, factor: int):
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(in_channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def patches(self, x: Tensor) -> Tensor:
        """The new tokens, still grouped by the token they come from: B×h×w×f×f×out."""
        return self.norm(self.expand(x).unflatten(-1, (self.factor, self.factor, -1)))

    def forward(self, x: Tensor) -> Tensor:
        return interleave(self.patches(x))


class PatchMerge(nn.Module):
    """Each 2 × 2 tokens become one: B×h×w×in -> B×(h/2)×(w/2)×out; h and w are even (Swin's patch merging)."""

    def __init__(self, *, in_channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


def interleave(patches: Tensor) -> Tensor:
    """B×h×w×f×f×C -> B×fh×fw×C."""
    batch, height, width, factor, _, channels = patches.shape
    return patches.transpose(2, 3).reshape(batch, height * factor, width * factor, channels)
