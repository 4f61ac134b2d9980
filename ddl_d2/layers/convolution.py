"""Convolutions of 1 × 1 through oneDNN on CPUs with one thread.

With one thread PyTorch sends fp32 convolutions of 1 × 1 (stride 1, fewer than 16 images) past oneDNN, which takes twice
as long. Such a convolution is a linear layer of channels, and is computed as one here. Everywhere else these are
PyTorch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import Conv2d as NormedConv2d
from torch import Tensor, nn

from ddl_d2.layers.linear import by_onednn, linear


class PointConv2d(nn.Conv2d):
    """`nn.Conv2d` of 1 × 1, see the module."""

    def forward(self, input: Tensor) -> Tensor:
        """Map B×K×h×w to B×N×h×w."""
        return _points(self, input) if _is_missed(self, input) else super().forward(input)


class NormedPointConv2d(NormedConv2d):
    """Detectron2's `Conv2d` (with a norm and an activation) of 1 × 1, see the module."""

    def forward(self, x: Tensor) -> Tensor:
        """Map B×K×h×w to B×N×h×w."""
        if not _is_missed(self, x):
            return super().forward(x)
        x = _points(self, x)
        for step in (self.norm, self.activation):
            if step is not None:
                x = step(x)
        return x


def use_fast_point_convolutions(module: nn.Module) -> None:
    """Make the convolutions of 1 × 1 inside `module` these; names, parameters and results (but for rounding) stay."""
    kinds = {nn.Conv2d: PointConv2d, NormedConv2d: NormedPointConv2d}
    for child in module.modules():
        if type(child) in kinds and _is_pointwise(child):
            child.__class__ = kinds[type(child)]


def _is_pointwise(layer: Any) -> bool:
    return layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1


def _is_missed(layer: nn.Conv2d, x: Tensor) -> bool:
    return torch.get_num_threads() == 1 and x.dim() == 4 and by_onednn(x, layer.weight)


def _points(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve as a linear layer; the result's channels come last in memory, as those of `x` do at best."""
    return linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
