"""Maps laid out as a grid of equal square cells.

A network's maps are rarely a whole number of cells; they are filled up by repeating their border, half of it on each
side (the odd row and column below and on the right).

Shapes: `B` images, `C` channels, `H, W` places, `h, w` cells, `k` places along a cell's side.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def pad_to_size(x: Tensor, size: Size) -> Tensor:
    """B×C×H×W -> B×C×`size`, the border repeated; `size` is at least (H, W)."""
    below, beside = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if below == beside == 0:
        return x
    padding = (beside // 2, (beside + 1) // 2, below // 2, (below + 1) // 2)
    return F.pad(x, padding, mode="replicate")


def grid_max_pool(x: Tensor, cells: Size) -> Tensor:
    """The highest value of each cell: B×C×H×W -> B×C×h×w, `cells` = (h, w); H, W are first filled up to multiples."""
    height, width = (-(-side // count) for side, count in zip(x.shape[-2:], cells, strict=True))
    return F.max_pool2d(pad_to_size(x, (height * cells[0], width * cells[1])), (height, width))


def to_cells(x: Tensor, cells: Size, side: int) -> Tensor:
    """The places of each cell on axes of their own: B×C×H×W, H, W at most (h·k, w·k) -> B×h×k×w×k×C, k = `side`.

    Channels come last, as they are in memory: gradients then lie as convolutions and normalizations like them.
    """
    filled = pad_to_size(x, (cells[0] * side, cells[1] * side)).permute(0, 2, 3, 1)
    return filled.unflatten(2, (cells[1], side)).unflatten(1, (cells[0], side))
