import pytest
import torch

from ddl_d2.layers.srm import SRMResiduals


def _impulse(value: float, channels=(1,)) -> torch.Tensor:
    image = torch.zeros(1, 3, 9, 8)
    image[0, list(channels), 4, 3] = value
    return image


def test_an_impulse_shows_the_three_filters():
    residuals = SRMResiduals()(_impulse(2.0))
    assert residuals.shape == (1, 3, 9, 8)
    around = residuals[0, :, 2:7, 1:6]  # 5 × 5 around the impulse
    # 2 / 4 · (-1, 2, -1), (2, -4, 2), ...
    inner = [[-0.5, 1, -0.5], [1, -2, 1], [-0.5, 1, -0.5]]
    assert around[0, 1:4, 1:4].tolist() == inner
    # 2 / 12 · (-1, 2, -2, 2, -1), (2, -6, 8, -6, 2), (-2, 8, -12, 8, -2), ...: symmetric
    rows = torch.tensor(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    )
    torch.testing.assert_close(around[1], rows / 6)
    # 2 / 2 · (1, -2, 1), along the row
    assert around[2, 2].tolist() == [0, 1, -2, 1, 0]
    # Nothing elsewhere: 3 · 3, 5 · 5 and 3 places in all.
    assert (residuals[0] != 0).sum(dim=(1, 2)).tolist() == [9, 25, 3]


def test_colors_are_summed():
    assert torch.equal(SRMResiduals()(_impulse(0.5, channels=(0, 1, 2))), SRMResiduals()(_impulse(1.5)))


def test_residuals_are_clipped_after_they_are_scaled():
    # -2, twice, is -4; its neighbors are 1, twice.
    row = SRMResiduals(scale=2.0)(_impulse(2.0))[0, 2, 4, 2:5]
    assert row.tolist() == [2, -3, 2]
    assert SRMResiduals(limit=1.5)(_impulse(2.0))[0, 2, 4, 2:5].tolist() == [1, -1.5, 1]


def test_a_scale_of_127_5_undoes_the_normalization():
    gray_levels = torch.randint(100, 110, (2, 3, 12, 11)).float()
    normalized = (gray_levels - 127.5) / 127.5
    inside = (..., slice(2, -2), slice(2, -2))  # at the border zeros are black in one and mid-gray in the other
    torch.testing.assert_close(
        SRMResiduals(scale=127.5)(normalized)[inside], SRMResiduals()(gray_levels)[inside], atol=1e-3, rtol=0
    )


def test_a_flat_image_has_no_residual_inside():
    residuals = SRMResiduals()(torch.full((1, 3, 8, 8), 0.3))
    assert residuals[..., 2:-2, 2:-2].abs().max() < 1e-6


def test_nothing_is_learnt_and_nothing_is_stored():
    layer = SRMResiduals()
    assert not list(layer.parameters())
    assert not layer.state_dict()


def test_residuals_are_of_full_precision_under_autocast():
    image = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        residuals = SRMResiduals()(image)
    assert residuals.dtype == torch.float32
    assert torch.equal(residuals, SRMResiduals()(image))


def test_gradients_reach_the_image():
    image = torch.rand(1, 3, 5, 6, dtype=torch.float32, requires_grad=True)
    SRMResiduals()(image)[0, 2, 2, 2].backward()
    assert image.grad[0, :, 2].tolist() == [pytest.approx([0, 0.5, -1, 0.5, 0, 0])] * 3
