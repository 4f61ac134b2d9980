"""Inputs of the op, and what is done with its outputs."""

from __future__ import annotations

import pytest
import torch

from ddl_d2.layers.ms_deform_attn import extension_status

STATUS = extension_status()
needs_extension = pytest.mark.skipif(not STATUS.available, reason=f"no compiled op: {STATUS.reason}")


def levels(shapes):
    spatial_shapes = torch.tensor(shapes, dtype=torch.int64).view(-1, 2)
    sizes = spatial_shapes.prod(1)
    return spatial_shapes, sizes.cumsum(0) - sizes


def inputs(shapes, images=2, queries=5, heads=2, channels=4, points=3, dtype=torch.float64, seed=0, spread=0.7):
    """Values, locations mostly inside (`spread` 0.7: about one in three outside), weights that sum to 1."""
    generator = torch.Generator().manual_seed(seed)
    spatial_shapes, starts = levels(shapes)
    pixels, shape = int(spatial_shapes.prod(1).sum()), (images, queries, heads, len(shapes), points)
    value = torch.randn(images, pixels, heads, channels, generator=generator, dtype=torch.float64)
    locations = 0.5 + spread * (torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 2 - 1)
    weights = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    weights = weights / weights.sum((-1, -2), keepdim=True)
    return value.to(dtype), spatial_shapes, starts, locations.to(dtype), weights.to(dtype)


def run(function, arguments, seed=1):
    """Output, and gradients of value, locations and weights for a random output gradient."""
    arguments = [a.detach().requires_grad_() if a.is_floating_point() else a for a in arguments]
    out = function(*arguments)
    if not out.requires_grad:  # the reference of nothing
        assert out.numel() == 0
        return [out, *(torch.zeros_like(a) for a in arguments if a.is_floating_point())]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grads = torch.autograd.grad(out, [a for a in arguments if a.is_floating_point()], grad.to(out))
    return [out.detach(), *grads]


def relative_error(got, expected):
    """Largest difference, relative to the largest expected number. Everything must be finite."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if got.numel() == 0:
        return 0.0
    assert torch.isfinite(got).all()
    difference = (got - expected).abs().max().item()
    return difference / max(expected.abs().max().item(), 1e-300) if difference else 0.0
