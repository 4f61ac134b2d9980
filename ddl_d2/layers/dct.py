"""The discrete cosine transform of whole maps, and the split of an image into high and low frequencies.

All are products with one matrix per axis, in fp32 (fp64 for fp64 inputs) even under autocast.

Shapes: `H, W` pixels, after any number of leading axes; `C` the H×H or W×W transform of an axis.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

LOW_PASSES = ("published", "square")
# Ranges narrower than this share of the image's largest magnitude are rounding, not content.
_ROUNDING = 1e-4


@lru_cache(maxsize=32)
def dct_matrix(size: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """Return the orthonormal matrix C, size × size, whose row k is the cosine of frequency k.

    C·x is the DCT-II of x, and Cᵀ·x, the DCT-III, is its inverse. Shared between calls: do not write into it.
    """
    with torch.inference_mode(False):  # an inference tensor would be of no use to a later training step
        k = torch.arange(size, dtype=torch.float64)[:, None]
        n = torch.arange(size, dtype=torch.float64)
        matrix = torch.cos(math.pi * k * (2 * n + 1) / (2 * size)) * math.sqrt(2 / size)
        matrix[0] = 1 / math.sqrt(size)
        return matrix.to(dtype=dtype, device=device)


def dct(x: Tensor) -> Tensor:
    """Transform …×H×W along its last two axes by the orthonormal DCT-II; frequency (0, 0) comes first."""
    x = _computable(x)
    rows, columns = _matrices(x)
    with torch.autocast(x.device.type, enabled=False):
        return rows @ (x @ columns.t())


def inverse_dct(x: Tensor) -> Tensor:
    """Transform …×H×W along its last two axes by the orthonormal DCT-III, the inverse of `dct`."""
    x = _computable(x)
    rows, columns = _matrices(x)
    with torch.autocast(x.device.type, enabled=False):
        return rows.t() @ (x @ columns)


def split(x: Tensor, *, cut: float = 0.05, low_pass: str = "published") -> tuple[Tensor, Tensor]:  # noqa: S107  a filter
    """Split an image into its high and "low" frequencies, as Mesorch (AAAI 2025) does; neither is normalized.

    Of the DCT's coefficients, the high-pass lacks the int(cut·H) × int(cut·W) of the lowest frequencies. The published
    low-pass lacks the int((1 - cut)·H) × int((1 - cut)·W) of the highest: what remains is an L, the first rows and the
    first columns whole, so frequencies that are high along one axis and low along the other pass. With "square" only
    the corner where both are low remains.

    A transform there and back is not needed: with R the first rows of the two transforms, Rᵀ·R·x (likewise x·Rᵀ·R) is
    the part of x in these frequencies, and R is thin.

    Args:
        x: …×H×W.
        cut: share of the frequencies of each axis that counts as low, in (0, 1).
        low_pass: one of `LOW_PASSES`.

    Returns:
        (high, low), each as x.

    Raises:
        ValueError: `cut` or `low_pass` is none of these.
    """
    if not 0 < cut < 1:
        raise ValueError(f"cut is {cut}: it must lie between 0 and 1")
    if low_pass not in LOW_PASSES:
        raise ValueError(f"low_pass is '{low_pass}': it must be one of {', '.join(LOW_PASSES)}")
    x = _computable(x)
    height, width = x.shape[-2:]
    rows, columns = _matrices(x)
    with torch.autocast(x.device.type, enabled=False):
        high = x - _corner(x, rows[: int(cut * height)], columns[: int(cut * width)])
        # Counted from the other end, as published: not always the same number.
        rows, columns = rows[: height - int((1 - cut) * height)], columns[: width - int((1 - cut) * width)]
        if low_pass == "square":  # noqa: S105  a filter, not a password
            return high, _corner(x, rows, columns)
        low_across = (x @ columns.t()) @ columns
        return high, low_across + rows.t() @ (rows @ (x - low_across))


def stretch_to_unit(x: Tensor, reference: Tensor) -> Tensor:
    """Move and scale each image so that its values, over all channels, reach from 0 to 1.

    An image of one value becomes 0 throughout; so does one whose values differ by no more than the rounding of a
    transform, which would otherwise be blown up to noise.

    Args:
        x: B×C×H×W.
        reference: B×C×H×W, from which `x` was computed.
    """
    low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
    span = high - low
    has_content = span > _ROUNDING * reference.abs().amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(has_content, (x - low) / torch.where(has_content, span, 1), 0)


def _corner(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the part of x (…×H×W) in the frequencies of both `rows` (a×H) and `columns` (b×W)."""
    return rows.t() @ (rows @ (x @ columns.t())) @ columns


def _computable(x: Tensor) -> Tensor:
    return (x if x.dtype == torch.float64 else x.float()).contiguous()


def _matrices(x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    return dct_matrix(height, x.dtype, x.device), dct_matrix(width, x.dtype, x.device)
