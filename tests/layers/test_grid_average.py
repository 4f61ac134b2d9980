"""Means of overlapping cells are those of PyTorch's adaptive pooling, at sizes that are no multiple of the cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ddl_d2.layers.grid import grid_average


@pytest.mark.parametrize("size", [(7, 13), (1, 2), (16, 3)])
@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_grid_average(size, side):
    x = torch.arange(2.0 * 3 * size[0] * size[1]).view(2, 3, *size)
    torch.testing.assert_close(grid_average(x, side), F.adaptive_avg_pool2d(x, side), rtol=1e-5, atol=1e-4)


def test_cells_overlap():
    # Of 3 places, cell 0 has the first two, cell 1 the last two.
    assert grid_average(torch.tensor([[[[1.0, 2.0, 6.0]]]]), 2)[0, 0, 0].tolist() == [1.5, 4.0]
