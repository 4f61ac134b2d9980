"""Maps laid out as a grid of equal square cells.

A network's maps are rarely a whole number of cells; they are filled up by repeating their border, half of it on each
side (the odd row and column below and on the right).

Shapes: `B` images, `C` channels, `H, W` places, `h, w` cells, `k` places along a cell's side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def pad_to_size(x: Tensor, size: Size) -> Tensor:
    """Fill up B×C×H×W to `size`, at least (H, W), by repeating the border."""
    below, beside = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if below == beside == 0:
        return x
    padding = (beside // 2, (beside + 1) // 2, below // 2, (below + 1) // 2)
    return F.pad(x, padding, mode="replicate")


def grid_max_pool(x: Tensor, cells: Size) -> Tensor:
    """Return the highest value of each cell.

    Args:
        x: B×C×H×W; H and W are first filled up to multiples of the cells.
        cells: (h, w).

    Returns:
        B×C×h×w.
    """
    height, width = (-(-side // count) for side, count in zip(x.shape[-2:], cells, strict=True))
    return F.max_pool2d(pad_to_size(x, (height * cells[0], width * cells[1])), (height, width))


def grid_average(x: Tensor, side: int) -> Tensor:
    """Return the means of `side` × `side` overlapping cells, as `adaptive_avg_pool2d` has them: B×C×side×side.

    Each axis is a product with a matrix, as an exported graph has no pooling of maps of any size.
    """
    rows, columns = (_shares(length, side, x) for length in x.shape[-2:])
    return rows @ x @ columns.t()


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """Return how much each of `length` places counts in each of `cells` cells: cells×length, rows of sum 1."""
    places = torch.arange(length, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    start, stop = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = ((places >= start) & (places < stop)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def to_cells(x: Tensor, cells: Size, side: int) -> Tensor:
    """Give the places of each cell axes of their own.

    Args:
        x: B×C×H×W, (H, W) at most (h·k, w·k); it is first filled up to that.
        cells: (h, w).
        side: k.

    Returns:
        B×h×k×w×k×C. Channels come last, as they are in memory: convolutions and normalizations are fast on gradients
        of this layout.
    """
    filled = pad_to_size(x, (cells[0] * side, cells[1] * side)).permute(0, 2, 3, 1)
    return filled.unflatten(2, (cells[1], side)).unflatten(1, (cells[0], side))
