"""Sine positional encoding of a map (Carion et al., DETR, arXiv 2005.12872, section A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position_encoding(
    height: int, width: int, num_channels: int, *, device: torch.device | None = None, temperature: float = 10000.0
) -> Tensor:
    """Return the normalized 2-D sine encoding of a map's places.

    The first half of the channels encodes y, the second x; within each, sine and cosine alternate. Coordinates are
    scaled to (0, 2π].

    Args:
        height: of the map.
        width: of the map.
        num_channels: a multiple of 4.
        device: of the result.
        temperature: base of the wavelengths' geometric progression.

    Returns:
        fp32 num_channels × height × width, in [-1, 1].

    Raises:
        ValueError: `num_channels` is not a multiple of 4.
    """
    if num_channels % 4:
        raise ValueError(f"num_channels must be a multiple of 4, got {num_channels}")
    half = num_channels // 2
    scale, eps = 2 * math.pi, 1e-6
    y, x = (torch.arange(1, side + 1, dtype=torch.float32, device=device) for side in (height, width))
    y, x = (places / (places[-1:] + eps) * scale for places in (y, x))
    index = torch.arange(half, dtype=torch.float32, device=device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def encode(positions: Tensor) -> Tensor:
        angles = positions[:, None] / period  # (positions, half)
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)

    rows = encode(y).t()[:, :, None].expand(half, height, width)
    columns = encode(x).t()[:, None, :].expand(half, height, width)
    return torch.cat((rows, columns))
