"""Multi-scale deformable attention as plain PyTorch: the yardstick of the op, and what runs where it is not compiled.

Source: Zhu et al., "Deformable DETR", arXiv 2010.04159, eq. 3. Shapes: as in `ms_deform_attn.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _levels(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> list[tuple[int, int, int]]:
    """Return (height, width, start) of each level; raises RuntimeError where they do not fit `value`."""
    shapes = spatial_shapes.tolist()
    starts = level_start_index.tolist()
    levels, total = [], 0
    for (height, width), start in zip(shapes, starts, strict=True):
        if height <= 0 or width <= 0 or start != total:
            raise RuntimeError(f"ms_deform_attn: spatial_shapes {shapes} do not fit level_start_index {starts}")
        levels.append((height, width, start))
        total += height * width
    if total != value.shape[1]:
        raise RuntimeError(
            f"ms_deform_attn: the levels of spatial_shapes {shapes} have {total} pixels together, "
            f"value has {value.shape[1]}"
        )
    return levels


def math_dtype(value: Tensor) -> torch.dtype:
    """Return the type in which sums are taken: float64 for float64, else float32."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _level_image(value: Tensor, height: int, width: int, start: int) -> Tensor:
    """Return the pixels of one level, [N, S, H, D] -> [N * H, D, height, width]."""
    pixels = value[:, start : start + height * width]
    return pixels.permute(0, 2, 3, 1).reshape(-1, value.shape[3], height, width)


def _level_grid(locations: Tensor, level: int) -> Tensor:
    """Return the locations in one level as grid_sample takes them, [N, Q, H, L, P, 2] -> [N * H, Q, P, 2] in [-1, 1].

    Locations outside [-2, 3] are moved to its border, NaN too: everything there samples only zeros, and grid_sample
    leaves open what it does with NaN and with numbers too large for an integer.
    """
    locations = locations[:, :, :, level].transpose(1, 2).flatten(0, 1)
    return 2 * locations.nan_to_num(nan=-2.0).clamp(-2, 3) - 1


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute `ms_deform_attn` by plain PyTorch: same arguments, any floating dtype, any device.

    Differentiable by PyTorch itself. Needs memory for every sample: N * H * D * Q * L * P numbers.
    """
    images, queries, heads, _, points, _ = sampling_locations.shape
    channels = value.shape[3]
    dtype = math_dtype(value)
    out = value.new_zeros((images * heads, channels, queries), dtype=dtype)
    if out.numel() and points:
        weights = attention_weights.to(dtype).transpose(1, 2).flatten(0, 1)  # [N * H, Q, L, P]
        for level, (height, width, start) in enumerate(_levels(value, spatial_shapes, level_start_index)):
            image = _level_image(value.to(dtype), height, width, start)
            samples = _sample(image, _level_grid(sampling_locations.to(dtype), level))  # [N * H, D, Q, P]
            out = out + (samples * weights[:, None, :, level]).sum(-1)
    out = out.view(images, heads * channels, queries).transpose(1, 2)
    return out.contiguous().to(value.dtype)


def ms_deform_attn_reference_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by value, locations and weights, where autograd is not at hand: inside an operator."""
    images, queries, heads, _, points, _ = sampling_locations.shape
    channels = value.shape[3]
    dtype = math_dtype(value)
    grad_value = torch.zeros(value.shape, dtype=dtype, device=value.device)
    grad_locations = torch.zeros(sampling_locations.shape, dtype=dtype, device=value.device)
    grad_weights = torch.zeros(attention_weights.shape, dtype=dtype, device=value.device)
    if grad_output.numel() and points:
        grad = grad_output.to(dtype).view(images, queries, heads, channels).permute(0, 2, 3, 1).flatten(0, 1)
        for level, (height, width, start) in enumerate(_levels(value, spatial_shapes, level_start_index)):
            image = _level_image(value.to(dtype), height, width, start).contiguous()
            locations = sampling_locations.to(dtype)
            grid = _level_grid(locations, level).contiguous()
            weights = attention_weights[:, :, :, level].to(dtype).transpose(1, 2).flatten(0, 1)  # [N * H, Q, P]
            by_weight = (_sample(image, grid) * grad[..., None]).sum(1)
            by_image, by_grid = torch.ops.aten.grid_sampler_2d_backward(
                grad[..., None] * weights[:, None], image, grid, 0, 0, False, [True, True]
            )
            pixels = by_image.view(images, heads, channels, height * width).permute(0, 3, 1, 2)
            grad_value[:, start : start + height * width] = pixels
            by_location = 2 * by_grid.view(images, heads, queries, points, 2).transpose(1, 2)
            moved = ~((locations[:, :, :, level] >= -2) & (locations[:, :, :, level] <= 3))
            grad_locations[:, :, :, level] = by_location.masked_fill(moved, 0)
            grad_weights[:, :, :, level] = by_weight.view(images, heads, queries, points).transpose(1, 2)
    return (
        grad_value.to(value.dtype),
        grad_locations.to(sampling_locations.dtype),
        grad_weights.to(attention_weights.dtype),
    )
