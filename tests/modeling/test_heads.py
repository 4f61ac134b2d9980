import math

import pytest
import torch
from detectron2.layers import ShapeSpec

from ddl_d2.modeling.heads import ImageHead, score_from_map, valid_average


def test_average_leaves_padding_out():
    # Stride 32. Image 0 fills 2 of 3 columns (33..64 pixels wide), image 1 all of them.
    feature = torch.tensor([[[[1.0, 3.0, 100.0]]], [[[1.0, 3.0, 5.0]]]])
    assert valid_average(feature, [(32, 40), (20, 96)], 32).tolist() == [[2.0], [3.0]]


def test_score_does_not_depend_on_the_neighbor_in_the_batch():
    torch.manual_seed(0)
    head = ImageHead(in_features=["res5"], input_shape={"res5": ShapeSpec(channels=4, stride=32)})
    alone = torch.randn(1, 4, 2, 3)
    padded = torch.full((2, 4, 4, 4), 9.0)
    padded[0, :, :2, :3] = alone
    assert torch.allclose(head({"res5": alone}, [(50, 90)])[0], head({"res5": padded}, [(50, 90), (128, 128)])[0])


def test_scores_from_a_map():
    forgery_map = torch.zeros(20, 10)
    forgery_map[0, :4] = torch.tensor([1.0, 0.5, 0.25, 0.25])
    assert score_from_map(forgery_map, "mean") == pytest.approx(2 / 200)
    assert score_from_map(forgery_map, "max") == 1.0
    assert score_from_map(forgery_map, "top_pixels") == pytest.approx(0.75)  # 1 % of 200 = 2 highest
    with pytest.raises(ValueError, match="TEST.IMAGE_SCORE"):
        score_from_map(forgery_map, "median")


def test_one_pixel_map():
    assert not math.isnan(score_from_map(torch.ones(1, 1), "top_pixels"))
