"""Linear layers that make a map of tokens finer or coarser, as Swin networks have them.

Shapes: `B` images, `h, w` tokens, `C` channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchExpand(nn.Module):
    """Patch expanding (Swin-Unet, arXiv 2105.05537): each token becomes f × f tokens.

    The linear layer runs at the coarse resolution, in -> f² · out, and its output is rearranged.
    """

    def __init__(self, *, in_channels: int, out_channels: int, factor: int) -> None:
        """Make the layer; `factor` is f."""
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(in_channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def patches(self, x: Tensor) -> Tensor:
        """Expand B×h×w×in to B×h×w×f×f×out: the new tokens, still grouped by the token they come from."""
        return self.norm(self.expand(x).unflatten(-1, (self.factor, self.factor, -1)))

    def forward(self, x: Tensor) -> Tensor:
        """Expand B×h×w×in to B×fh×fw×out."""
        return interleave(self.patches(x))


class PatchMerge(nn.Module):
    """Patch merging (Swin, arXiv 2103.14030): each 2 × 2 tokens become one."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge B×h×w×in, h and w even, to B×(h/2)×(w/2)×out."""
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


def interleave(patches: Tensor) -> Tensor:
    """Lay out the tokens of patches on one map: B×h×w×f×f×C -> B×fh×fw×C."""
    batch, height, width, factor, _, channels = patches.shape
    return patches.transpose(2, 3).reshape(batch, height * factor, width * factor, channels)
