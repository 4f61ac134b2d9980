import pytest
import torch

from ddl_d2.modeling.mesorch.maps import MapGate, MapHead


def test_the_published_shapes():
    head = MapHead([768, 384, 192, 96])
    assert [tuple(step.weight.shape) for step in head.upsample] == [(768, 384, 4, 4), (384, 192, 4, 4), (192, 96, 4, 4)]
    assert head.to_map.weight.shape == (1, 96, 1, 1)
    gate = MapGate(num_maps=8)
    # 192 · 9 · 49 + 192, LayerNorm 2 · 192, 192 · 192 · 9 + 192, 192 · 768 + 768, 768 · 192 + 192, 8 · 192 · 49 + 8.
    assert sum(p.numel() for p in gate.parameters()) == 84_864 + 384 + 331_968 + 148_224 + 147_648 + 75_272


@pytest.mark.parametrize(("channels", "factor"), [([5], 1), ([7, 5], 2), ([12, 7, 5], 4), ([9, 12, 7, 5], 8)])
def test_heads_end_at_stride_4(channels, factor):
    head = MapHead(channels)
    assert head(torch.randn(2, channels[0], 3, 4)).shape == (2, 1, 3 * factor, 4 * factor)


def test_heads_are_linear():
    head = MapHead([6, 5, 4])
    x, y = torch.randn(2, 1, 6, 3, 3)
    zero = head(torch.zeros_like(x))
    torch.testing.assert_close(head(x + y) - zero, (head(x) - zero) + (head(y) - zero), rtol=1e-4, atol=1e-5)


def test_gate_weighs_each_place():
    gate = MapGate(channels=6, num_maps=5)
    weights = gate(torch.randn(2, 9, 32, 64))
    assert weights.shape == (2, 5, 8, 16)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 8, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert gate(torch.randn(1, 9, 32, 32)).dtype == torch.float32


def test_the_gates_block_is_added_to_its_input():
    gate = MapGate(channels=6, num_maps=2)
    torch.nn.init.zeros_(gate.block[3].weight)
    torch.nn.init.zeros_(gate.block[3].bias)  # then GELU(0) = 0 and the block adds nothing
    x = torch.randn(1, 9, 16, 16)
    torch.testing.assert_close(gate(x), gate.to_weights(gate.stem(x)).softmax(dim=1))


def _slow_gate(gate, x):
    x = gate.stem(x)
    return gate.to_weights(x + gate.block(x)).softmax(dim=1)


def _slow_head(head, x):
    return head.to_map(head.upsample(x))


@pytest.mark.parametrize(
    ("module", "slow", "channels"),
    [
        (MapGate(channels=6, num_maps=5), _slow_gate, 9),
        (MapHead([5]), _slow_head, 5),
        (MapHead([7, 5]), _slow_head, 7),
        (MapHead([9, 7, 5]), _slow_head, 9),
    ],
    ids=["gate", "no step", "one step", "two steps"],
)
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 5)])
def test_one_convolution_for_several_gives_their_values_and_gradients(module, slow, channels, size):
    module = module.double()
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    ours, theirs = module(x.clone()), slow(module, x)
    if isinstance(module, MapGate):
        theirs = theirs.float()  # as the gate's softmax
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(theirs)
    gradients = (torch.autograd.grad((out * weights).sum(), leaves) for out in (ours, theirs))
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)
