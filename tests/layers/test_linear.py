import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddl_d2.layers.linear import Linear, batched_product, linear, use_fast_linear


def _numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7, 16), (2, 5, 16), (1, 16), (2, 0, 16), (16,)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 5, 40])
def test_equals_pytorch_forward_and_backward(shape, with_bias, outputs):
    x, weight = _numbers(*shape), _numbers(outputs, 16, seed=1)
    bias = _numbers(outputs, seed=2) if with_bias else None
    results = []
    for function in (F.linear, linear):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
        out = function(*leaves)
        grads = torch.autograd.grad((out * _numbers(*out.shape, seed=3)).sum(), leaves)
        results.append((out, *grads))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_operands_with_gaps_or_transposed():
    x, weight = _numbers(6, 2, 16)[:, 1], _numbers(16, 9).t()
    expected = x @ weight.t()
    torch.testing.assert_close(linear(x, weight), expected)
    torch.testing.assert_close(linear(_numbers(16, 6).t(), weight), _numbers(16, 6).t() @ weight.t())


def test_a_frozen_weight_still_passes_the_gradient_on():
    x, weight = _numbers(3, 4).requires_grad_(), _numbers(2, 4)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 4))
    assert weight.grad is None


def test_other_types_and_autocast_are_pytorchs_own():
    x, weight = _numbers(3, 4), _numbers(2, 4)
    assert linear(x.double(), weight.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


def test_nan_is_not_hidden():
    x = _numbers(3, 4)
    x[1, 2] = float("nan")
    assert torch.isnan(linear(x, _numbers(2, 4))).any(dim=1).tolist() == [False, True, False]


def test_batched_product_is_a_product_with_the_transpose():
    x, y = _numbers(2, 3, 8), _numbers(2, 5, 8, seed=1)
    torch.testing.assert_close(batched_product(x, y), torch.einsum("bmk,bnk->bmn", x, y))


def test_use_fast_linear_keeps_names_values_and_subclasses():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)), Special(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(_numbers(3, 4))
    use_fast_linear(model)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [Linear, Linear, Special]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(model(_numbers(3, 4)), expected)


def test_a_model_with_it_can_be_compiled():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    use_fast_linear(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = _numbers(3, 4)
    torch.testing.assert_close(compiled(x), model(x))
