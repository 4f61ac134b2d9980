"""1 × 1 convolutions with one thread: the same results, through oneDNN."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from ddl_d2.layers.convolution import NormedPointConv2d, PointConv2d, use_fast_point_convolutions


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _layers(**options) -> list[nn.Module]:
    return [nn.Conv2d(6, 4, 1, **options), Conv2d(6, 4, 1, norm=nn.BatchNorm2d(4), activation=torch.relu, **options)]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_results_and_gradients_stay(one_thread, index, bias, layout):
    torch.manual_seed(0)
    layer = _layers(bias=bias)[index]
    x = torch.randn(2, 6, 5, 7).to(memory_format=layout).requires_grad_()
    expected = layer(x)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *layer.parameters()])
    use_fast_point_convolutions(layer)
    assert type(layer) in (PointConv2d, NormedPointConv2d)
    with torch.profiler.profile() as profile:
        found = layer(x)
    assert any("mkldnn::_linear_pointwise" in event.key for event in profile.key_averages())
    got = torch.autograd.grad(found.square().sum(), [x, *layer.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"groups": 2}])
def test_other_convolutions_are_left_alone(options):
    for layer in _layers(**options):
        kind = type(layer)
        use_fast_point_convolutions(layer)
        assert type(layer) is kind


def test_more_threads_are_left_to_pytorch():
    layer = nn.Conv2d(6, 4, 1)
    use_fast_point_convolutions(layer)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.profiler.profile() as profile:
            layer(torch.randn(1, 6, 3, 3))
    finally:
        torch.set_num_threads(before)
    assert not any("_linear_pointwise" in event.key for event in profile.key_averages())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_what_follows_may_change_it_in_place(size):
    """As the squeeze-and-excitation of EfficientNet does."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(6, 4, 1), torch.randn(2, 6, *size, requires_grad=True)
    (wanted,) = torch.autograd.grad(torch.nn.functional.silu(layer(x)).square().sum(), x)
    use_fast_point_convolutions(layer)
    (got,) = torch.autograd.grad(torch.nn.functional.silu(layer(x), inplace=True).square().sum(), x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
