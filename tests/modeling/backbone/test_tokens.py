"""Tokens of feature maps: in row order, on the grid of the first map, and pooled by their mean."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.tokens import FeatureTokens, Tokens


class _Maps(Backbone):
    """Three maps of one channel that say where they are: each cell's number, row by row."""

    def forward(self, images):
        side = images.shape[-1]
        return {
            f"res{i}": torch.arange((side // 2**i) ** 2, dtype=torch.float32).view(1, 1, side // 2**i, -1)
            for i in (3, 4, 5)
        }

    def output_shape(self):
        return {f"res{i}": ShapeSpec(channels=1, stride=2**i) for i in (3, 4, 5)}


def test_a_map_laid_out_as_tokens_and_back():
    maps = torch.arange(24.0).view(1, 2, 3, 4)  # channels of 3 × 4
    tokens = Tokens(tokens=maps.flatten(2).transpose(1, 2), pooled=maps.mean((2, 3)), grid=(3, 4))
    assert tokens.tokens[0, 5].tolist() == [5.0, 17.0]  # row 1, column 1
    assert torch.equal(tokens.map(), maps)
    assert tokens.class_token is None


def test_the_first_map_says_the_grid():
    backbone = FeatureTokens(backbone=_Maps(), in_features=["res4", "res3", "res5"], input_size=32)
    assert (backbone.channels, backbone.grid, backbone.patch) == (3, (2, 2), 16)
    assert backbone.output_shape()["tokens"] == ShapeSpec(channels=3, stride=16)
    tokens = backbone(torch.zeros(1, 3, 32, 32))
    # res4's cells; the means of res3's cells 0, 1, 4, 5 and so on; res5's only cell, everywhere.
    assert tokens.tokens[0].tolist() == [[0, 2.5, 0], [1, 4.5, 0], [2, 10.5, 0], [3, 12.5, 0]]
    assert tokens.pooled.tolist() == [[1.5, 7.5, 0.0]]


@pytest.mark.parametrize("features", [["res2"], ["res4", "p6"], []])
def test_features_that_there_are_not(features):
    with pytest.raises(ConfigError, match="MODEL.DETECTION.IN_FEATURES"):
        FeatureTokens(backbone=_Maps(), in_features=features, input_size=32)


@pytest.mark.parametrize("size", [0, 40])
def test_sizes_that_are_not_whole_cells(size):
    with pytest.raises(ConfigError, match=f"MODEL.LOUPE.INPUT_SIZE is {size}: with this backbone, a multiple of 16"):
        FeatureTokens(backbone=_Maps(), in_features=["res4"], input_size=size)
