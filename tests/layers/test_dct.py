import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from ddl_d2.layers.dct import dct, dct_matrix, inverse_dct, split, stretch_to_unit

SIZES = [(1, 1), (1, 7), (8, 8), (5, 12), (21, 40), (33, 64)]


def _images(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_two_points_by_hand():
    # [3, 1]: (3 + 1) / √2 and (3 - 1)·cos(π/4)·√(2/2) = 2 / √2.
    expected = torch.tensor([[4 / math.sqrt(2), 2 / math.sqrt(2)]], dtype=torch.float64)
    torch.testing.assert_close(dct(torch.tensor([[3.0, 1.0]], dtype=torch.float64)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_equals_scipy_and_inverts(size):
    x = _images(2, 3, *size)
    coefficients = dct(x)
    np.testing.assert_allclose(coefficients.numpy(), dctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(inverse_dct(x).numpy(), idctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-12)
    torch.testing.assert_close(inverse_dct(coefficients), x)
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum())  # Parseval


def test_fp32_also_at_full_size_and_under_autocast():
    x = _images(1, 3, 512, 512, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        coefficients, (high, low) = dct(x.to(torch.bfloat16)), split(x)
    assert coefficients.dtype == high.dtype == low.dtype == torch.float32
    exact = dctn(x.to(torch.bfloat16).double().numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(coefficients.numpy(), exact, atol=1e-4)
    exact_high, exact_low = split(x.double())
    torch.testing.assert_close(high.double(), exact_high, rtol=0, atol=1e-5)
    torch.testing.assert_close(low.double(), exact_low, rtol=0, atol=1e-5)


def _slow_split(x: torch.Tensor, cut: float, low_pass: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Transform, set coefficients to zero, transform back."""
    height, width = x.shape[-2:]
    without_low, without_high = dct(x), dct(x)
    without_low[..., : int(cut * height), : int(cut * width)] = 0
    first_row, first_column = height - int((1 - cut) * height), width - int((1 - cut) * width)
    if low_pass == "published":
        without_high[..., first_row:, first_column:] = 0
    else:
        without_high[..., first_row:, :] = 0
        without_high[..., :, first_column:] = 0
    return inverse_dct(without_low), inverse_dct(without_high)


@pytest.mark.parametrize("size", [*SIZES, (100, 61)])
@pytest.mark.parametrize("cut", [0.05, 0.3])
@pytest.mark.parametrize("low_pass", ["published", "square"])
def test_split_equals_setting_coefficients_to_zero(size, cut, low_pass):
    x = _images(2, 3, *size)
    for fast, slow in zip(split(x, cut=cut, low_pass=low_pass), _slow_split(x, cut, low_pass), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)


def _kept(part: torch.Tensor) -> list[str]:
    return ["".join("x" if abs(c) > 1e-9 else "." for c in row) for row in dct(part).tolist()]


def test_which_coefficients_remain_by_hand():
    # 4 × 6 with cut 0.4. High: int(1.6) = 1 row and int(2.4) = 2 columns of the corner go. Low: the last int(2.4) = 2
    # rows and the last int(3.6) = 3 columns go where both meet, so rows 0-1 and columns 0-2 stay.
    x = inverse_dct(torch.ones(4, 6, dtype=torch.float64))
    high, low = split(x, cut=0.4)
    assert _kept(high) == ["..xxxx", "xxxxxx", "xxxxxx", "xxxxxx"]
    assert _kept(low) == ["xxxxxx", "xxxxxx", "xxx...", "xxx..."]
    assert _kept(split(x, cut=0.4, low_pass="square")[1]) == ["xxx...", "xxx...", "......", "......"]


def test_the_published_counts_at_512():
    # int(0.05 · 512) = 25 are low for the high-pass, but 512 - int(0.95 · 512) = 512 - 486 = 26 for the low-pass.
    x = inverse_dct(torch.ones(512, 512, dtype=torch.float64))
    high, low = (dct(part).abs() > 1e-6 for part in split(x))
    assert (~high).sum() == 25 * 25
    assert not high[:25, :25].any()
    assert (~low).sum() == 486 * 486
    assert not low[26:, 26:].any()


def test_an_image_too_small_to_split_passes_both():
    x = torch.full((1, 3, 1, 1), 2.0)
    high, low = split(x)
    assert torch.equal(high, x)
    assert torch.equal(low, x)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="low_pass is 'round'"):
        split(torch.zeros(2, 2), low_pass="round")
    with pytest.raises(ValueError, match="cut is 1.0"):
        split(torch.zeros(2, 2), cut=1.0)


def test_stretch_by_hand_over_all_channels_of_each_image():
    x = torch.tensor([[[[1.0, 3.0]], [[5.0, 2.0]]], [[[0.0, 10.0]], [[10.0, 5.0]]]])
    # (x - 1) / (5 - 1) and x / 10.
    expected = torch.tensor([[[[0.0, 0.5]], [[1.0, 0.25]]], [[[0.0, 1.0]], [[1.0, 0.5]]]])
    assert torch.equal(stretch_to_unit(x, x), expected)


@pytest.mark.parametrize("value", [0.0, -2.1, 255.0])
@pytest.mark.parametrize("size", [(64, 64), (65, 31), (1, 1)])
def test_constant_images_become_zero(value, size):
    x = torch.full((2, 3, *size), value)
    x[1] = _images(3, *size, dtype=torch.float32)
    for part in split(x):
        stretched = stretch_to_unit(part, x)
        assert not stretched[0].any()
        assert torch.isfinite(stretched).all()
        assert (stretched[1].min(), stretched[1].max()) == (0, 1)  # three values differ even in one pixel


def test_one_gray_level_is_content():
    x = torch.zeros(1, 3, 64, 64)
    x[0, 1, 20, 30] = 1 / 255
    x += 2.6
    high, _ = split(x)
    assert stretch_to_unit(high, x).max() == 1


def test_differentiable():
    x = _images(1, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(dct, x)
    assert torch.autograd.gradcheck(inverse_dct, x)
    for low_pass in ("published", "square"):
        assert torch.autograd.gradcheck(lambda p, by=low_pass: split(p, cut=0.4, low_pass=by), x)
    assert torch.autograd.gradcheck(lambda p: stretch_to_unit(split(p, cut=0.4)[0], p), x)
    constant = torch.ones(1, 3, 8, 8, requires_grad=True)
    stretch_to_unit(split(constant)[0], constant).sum().backward()
    assert torch.isfinite(constant.grad).all()


def test_the_cached_matrix_serves_training_after_inference():
    dct_matrix.cache_clear()
    with torch.inference_mode():
        dct(torch.zeros(6, 6))
    x = torch.ones(6, 6, requires_grad=True)
    dct(x).sum().backward()
    assert torch.isfinite(x.grad).all()
