import torch
from torch import nn

from ddl_d2.layers.patches import PatchExpand, PatchMerge, interleave


def test_the_tokens_of_a_patch_land_beside_each_other():
    # One image, 1 × 2 tokens, each of which becomes 2 × 2.
    patches = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]).view(1, 1, 2, 2, 2, 1)
    assert interleave(patches)[0, :, :, 0].tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_expansion_by_hand():
    # 8C -> 16C at the coarse resolution, then 4C at twice the resolution (C = 1 here).
    layer = PatchExpand(in_channels=8, out_channels=4, factor=2)
    assert layer.expand.weight.shape == (16, 8)
    layer.norm = nn.Identity()
    x = torch.randn(2, 3, 5, 8)
    expanded, fine = layer.expand(x), layer(x)
    assert fine.shape == (2, 6, 10, 4)
    for row in range(6):
        for column in range(10):
            start = 4 * (2 * (row % 2) + column % 2)
            expected = expanded[:, row // 2, column // 2, start : start + 4]
            assert torch.equal(fine[:, row, column], expected)


def test_merging_sees_the_four_tokens_of_each_square():
    layer = PatchMerge(in_channels=1, out_channels=1)
    layer.norm = nn.Identity()
    nn.init.ones_(layer.reduction.weight)
    x = torch.arange(8.0).view(1, 2, 4, 1)  # 0 1 2 3 / 4 5 6 7
    assert layer(x).flatten().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7]
