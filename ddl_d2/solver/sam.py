"""Sharpness-aware minimization (Foret et al. 2021): step along the gradient that the loss has a little uphill.

A step at weights w has three parts, which `TrainingStep` puts together: the gradient g at w; the gradient at
w + ρ · g / ‖g‖, on the same batch and with the same random numbers; and, back at w, the optimizer's step with that
second gradient. The norm is over all parameters together. In distributed training both gradients are averaged over the
ranks (by DistributedDataParallel), so that all of them climb the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def uphill(parameters: list[nn.Parameter], rho: float) -> Iterator[None]:
    """Move `parameters` by ρ · g / ‖g‖ along their gradients; afterwards they are, bit for bit, as before.

    The gradients are used up (set to None). Where all of them are zero nothing moves.
    """
    moved = [p for p in parameters if p.grad is not None]
    before = [p.detach().clone() for p in moved]
    try:
        with torch.no_grad():
            _climb(moved, rho)
        yield
    finally:
        with torch.no_grad():
            # Not by subtracting: (w + e) - e is not w in floating point.
            for parameter, saved in zip(moved, before, strict=True):
                parameter.copy_(saved)


def _climb(parameters: list[nn.Parameter], rho: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    norm = nn.utils.get_total_norm(gradients)
    scale = torch.where(norm > 0, rho / norm, torch.zeros_like(norm))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.add_(gradient.mul_(scale.to(gradient.device)))
        parameter.grad = None


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Keep BatchNorm (of any kind) in training mode from remembering a batch; it normalizes by the batch as ever.

    The statistics then describe the weights w only, and each batch counts once.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            # PyTorch's own kinds look at the second, which also spares the count of batches; Detectron2's naive
            # synchronized one only at the first.
            norm.momentum, norm.track_running_stats = 0.0, False
        yield
    finally:
        for norm, (momentum, track) in zip(norms, before, strict=True):
            norm.momentum, norm.track_running_stats = momentum, track


@contextmanager
def random_numbers_to_repeat(device: torch.device) -> Iterator[None]:
    """Have what is drawn inside (dropped paths, sampled points) drawn again by what follows."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
