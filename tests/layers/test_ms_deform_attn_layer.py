"""The layer around the op."""

import pytest
import torch

from ddl_d2.layers.ms_deform_attn_layer import MSDeformAttn
from tests.layers.op_inputs import levels


def test_layer_starts_on_a_ring():
    layer = MSDeformAttn(16, num_levels=2, num_heads=4, num_points=3)
    ring = layer.sampling_offsets.bias.view(4, 2, 3, 2)
    # Four heads look right, down, left and up (y grows downwards), point p at p + 1 pixels, on every level.
    for head, direction in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        for point in range(3):
            expected = torch.tensor(direction) * (point + 1.0)
            for level in range(2):
                torch.testing.assert_close(ring[head, level, point], expected)
    for parameter in (layer.sampling_offsets.weight, layer.attention_weights.weight, layer.attention_weights.bias):
        assert not parameter.any()
    names = {name.split(".")[0] for name in layer.state_dict()}
    assert names == {"sampling_offsets", "attention_weights", "value_proj", "output_proj"}


def test_layer_equals_its_formula():
    """One query, one head, one level, one point of weight 1: the projected pixel under reference point + offset."""
    layer = MSDeformAttn(4, num_levels=1, num_heads=1, num_points=1)
    shapes, starts = levels([(3, 5)])
    pixels = torch.randn(1, 15, 4)
    # The reference is the center of pixel (x 1, y 2), and the initial offset of head 0, point 0 is one pixel right.
    reference_points = torch.tensor([(1 + 0.5) / 5, (2 + 0.5) / 3]).view(1, 1, 1, 2)
    out = layer(torch.randn(1, 1, 4), reference_points, pixels, shapes, starts)
    expected = layer.output_proj(layer.value_proj(pixels[:, 2 * 5 + 2]))
    torch.testing.assert_close(out[:, 0], expected, atol=1e-5, rtol=1e-5)
    # The same pixel as padding counts as 0, bias of the projection included.
    padding_mask = torch.zeros(1, 15, dtype=torch.bool)
    padding_mask[0, 12] = True
    out = layer(torch.randn(1, 1, 4), reference_points, pixels, shapes, starts, padding_mask)
    torch.testing.assert_close(out[:, 0], layer.output_proj(torch.zeros(1, 4)), atol=1e-5, rtol=1e-5)


def test_layer_refuses_odd_heads():
    with pytest.raises(ValueError, match="multiple of num_heads"):
        MSDeformAttn(30, num_heads=8)
