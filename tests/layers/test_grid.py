import pytest
import torch

from ddl_d2.layers.grid import grid_max_pool, pad_to_size, to_cells


def test_the_border_is_repeated_on_both_sides():
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])
    # Three columns more: one on the left, two on the right. One row more: below.
    assert pad_to_size(x, (3, 6))[0, 0].tolist() == [[1, 1, 2, 3, 3, 3], [4, 4, 5, 6, 6, 6], [4, 4, 5, 6, 6, 6]]
    assert pad_to_size(x, (2, 3)) is x


def test_the_highest_of_each_cell_by_hand():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    # 3 × 5 becomes 4 × 6 (rows 0 1 2 2, columns 0 1 2 3 4 4); cells of 2 × 2.
    assert grid_max_pool(x, (2, 3))[0, 0].tolist() == [[6, 8, 9], [11, 13, 14]]


@pytest.mark.parametrize(
    ("size", "cells"), [((147, 147), (10, 10)), ((299, 299), (19, 19)), ((7, 12), (3, 5)), ((4, 4), (4, 4))]
)
def test_cells_are_of_one_size_and_in_order(size, cells):
    x = torch.randn(2, 3, *size)
    padded = pad_to_size(x, tuple(-(-side // count) * count for side, count in zip(size, cells, strict=True)))
    height, width = (side // count for side, count in zip(padded.shape[-2:], cells, strict=True))
    pooled = grid_max_pool(x, cells)
    assert pooled.shape == (2, 3, *cells)
    for i, j in [(0, 0), (cells[0] - 1, 0), (cells[0] // 2, cells[1] - 1)]:
        cell = padded[:, :, i * height : (i + 1) * height, j * width : (j + 1) * width]
        assert torch.equal(pooled[:, :, i, j], cell.amax(dim=(2, 3)))


def test_places_of_a_cell_by_hand():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    cells = to_cells(x, (2, 2), 2)
    assert cells.shape == (1, 2, 2, 2, 2, 1)
    assert cells[0, 1, :, 0, :, 0].tolist() == [[8, 9], [12, 13]]  # second row of cells, first column
    # 147 places fill 19 cells of 8, 152 places, of which 2 on the left and 3 on the right repeat the border.
    wide = to_cells(torch.arange(147.0).expand(1, 1, 147, 147), (19, 19), 8)
    assert wide[0, 0, 0, 0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert wide[0, 0, 0, 18, :, 0].tolist() == [142, 143, 144, 145, 146, 146, 146, 146]
