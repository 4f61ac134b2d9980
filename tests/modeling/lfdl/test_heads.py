import math

import pytest
import torch
from detectron2.layers import ShapeSpec

from ddl_d2.errors import ConfigError
from ddl_d2.layers.grid import grid_max_pool, pad_to_size
from ddl_d2.modeling.lfdl.heads import FusionClassifier, PatchFusion, PatchHead, PixelHead


def _fusion(channels, strides, **options) -> PatchFusion:
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in zip(channels, strides, strict=True)]
    return PatchFusion(input_shapes=shapes, **options)


def test_fusion_has_the_published_channels():
    fusion = _fusion([64, 128, 256, 728, 728, 728], [2, 4, 8, 16, 16, 16])
    assert fusion.out_channels == 64 + 16 + 4 + 1 + 1 + 728 == 814
    assert [tuple(p[0].weight.shape) for p in fusion.projections] == [
        (512, c, 1, 1) for c in (64, 128, 256, *[728] * 3)
    ]


@pytest.mark.parametrize(
    ("reading", "expected"),
    # The vector (1, 2); places (1, 0), (0, 1), (1, 1), (-1, -1): products (1, 0), (0, 2), (1, 2), (-1, -2).
    [
        ("paper", [math.tanh(0.5), math.tanh(1), math.tanh(1.5), -math.tanh(1.5)]),
        ("released", [math.tanh(1), math.tanh(2), math.tanh(1) + math.tanh(2), -math.tanh(1) - math.tanh(2)]),
    ],
)
def test_likeness_of_four_places_to_their_cell(reading, expected):
    fusion = _fusion([2, 3], [8, 16], dim=2, reading=reading)
    places = torch.tensor([[1.0, 0, 1, -1], [0, 1, 1, -1]]).view(1, 2, 2, 2)
    vectors = torch.tensor([1.0, 2]).view(1, 2, 1, 1)
    fused = fusion([places, vectors], torch.tensor([7.0, 8, 9]).view(1, 3, 1, 1))
    assert fused.flatten().tolist() == pytest.approx([*expected, 7, 8, 9])


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_fusion_place_by_place(reading):
    torch.manual_seed(0)
    sizes, grid = [(19, 13), (10, 7), (5, 4)], (5, 4)  # 20 × 16 and 10 × 8 when filled up
    fusion = _fusion([4, 5, 6], [4, 8, 16], dim=3, reading=reading).eval()
    features = [torch.randn(2, c, *size) for c, size in zip((4, 5, 6), sizes, strict=True)]
    with torch.no_grad():
        projected = fusion.project(features)
        fused = fusion(projected, features[-1])
    assert fused.shape == (2, 16 + 4 + 6, *grid)
    channel = 0
    for x, side in zip(projected, (4, 2), strict=False):
        x = pad_to_size(x, (grid[0] * side, grid[1] * side))
        for i in range(side):
            for j in range(side):
                for row, column in [(0, 0), (4, 3), (2, 1)]:
                    place = x[:, :, row * side + i, column * side + j] * projected[-1][:, :, row, column]
                    likeness = place.tanh().sum(1) if reading == "released" else place.mean(1).tanh()
                    torch.testing.assert_close(fused[:, channel, row, column], likeness)
                channel += 1
    assert torch.equal(fused[:, channel:], features[-1])


def test_projections_are_rectified():
    fusion = _fusion([4, 6], [8, 16], dim=3)
    assert all((x >= 0).all() for x in fusion.project([torch.randn(2, 4, 4, 4), torch.randn(2, 6, 2, 2)]))
    with pytest.raises(ConfigError, match="MODEL.LFDL.MPFF is 'other'"):
        _fusion([4, 6], [8, 16], reading="other")


def test_the_sigmoid_of_a_maps_logit_is_the_softmax_of_two():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 5)
    for head in (PatchHead(in_channels=6).eval(), PixelHead(in_channels=6, dims=[7, 3]).eval()):
        logits = head(x)
        assert logits.shape == (2, 4, 5)
        torch.testing.assert_close(logits.sigmoid(), head.layers(x).softmax(dim=1)[:, 1])


def test_the_class_by_its_formula():
    torch.manual_seed(0)
    classifier = FusionClassifier(in_channels=[3, 4], last_channels=5, dims=[6, 8]).eval()
    earlier, last = [torch.randn(2, 3, 7, 5), torch.randn(2, 4, 4, 4)], torch.randn(2, 5, 2, 3)
    torch.nn.init.normal_(classifier.norm.running_mean)
    with torch.no_grad():
        logits = classifier(earlier, last)
        pooled = torch.cat([grid_max_pool(x, (2, 3)) for x in earlier], dim=1)
        places = []
        for i in range(2):
            for j in range(3):
                joined = classifier.earlier(pooled[:, :, i, j]) * classifier.last(last[:, :, i, j])
                joined = classifier.joined(joined.tanh())
                norm = classifier.norm
                places.append((norm.weight * (joined - norm.running_mean) / (1 + norm.eps) ** 0.5 + norm.bias).relu())
        expected = classifier.classify(torch.stack(places).mean(dim=0))
    torch.testing.assert_close(logits, expected)


def test_both_dropouts_are_on_in_training():
    classifier = FusionClassifier(in_channels=[3], last_channels=5, dims=[6, 8], dropout=1.0).train()
    earlier, last = [torch.randn(2, 3, 4, 4)], torch.randn(2, 5, 2, 2)
    assert torch.equal(classifier(earlier, last), classifier.classify.bias.expand(2, 2))
    names = {name for name, p in classifier.named_parameters() if p.shape[0] in (6, 8)}
    assert {"earlier.weight", "last.weight", "joined.weight", "norm.weight"} <= names
