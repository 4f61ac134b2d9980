"""Matrix products through oneDNN on CPUs.

PyTorch sends fp32 `linear` to MKL, which runs at half speed on processors that are not Intel's (195 against 440
GFLOP/s on two Zen 5 cores, equal to rounding); oneDNN generates code for what the processor can do, and is already
what PyTorch uses for convolutions and for bfloat16. Everywhere else than in fp32 on a CPU these are PyTorch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear`: x …×K, weight N×K, bias N -> …×N; differentiable once."""
    if by_onednn(x, weight):
        return _OneDnnLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def batched_product(x: Tensor, y: Tensor) -> Tensor:
    """Multiply matrices, x · yᵀ, image by image: B×M×K, B×N×K -> B×M×N."""
    # A CPU's batched product copies operands whose layout it does not like. An exported graph has any number of images.
    if x.device.type == "cpu" and not torch.compiler.is_exporting():
        return torch.stack([linear(one, other) for one, other in zip(x, y, strict=True)])
    return x @ y.transpose(1, 2)


class Linear(nn.Linear):
    """`nn.Linear` computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map …×K to …×N."""
        return linear(input, self.weight, self.bias)


def use_fast_linear(module: nn.Module) -> None:
    """Make every `nn.Linear` inside `module` (not its subclasses) a `Linear`; names and parameters stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Linear


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        rows = _product(x.reshape(-1, x.shape[-1]), weight, bias)
        # Shaped without a trace: autograd forbids what follows to change a view that was made in here, as SiLU in place
        # does.
        return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], weight.shape[0]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        rows = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[0]:
            by_x = _product(grad, weight.t())
        if ctx.needs_input_grad[1]:
            inputs = x.reshape(-1, x.shape[-1])
            # Both are the same product; the one with the longer result rows is faster.
            if weight.shape[0] > weight.shape[1]:
                by_weight = _product(inputs.t(), rows.t()).t()
            else:
                by_weight = _product(rows.t(), inputs.t())
        if ctx.needs_input_grad[2]:
            by_bias = rows.sum(dim=0)
        return by_x, by_weight, by_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # The operator that torch.compile emits for CPUs; public PyTorch has no other way to oneDNN's fp32 product.
    return torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), bias, "none", [], "")


def _dense(x: Tensor) -> Tensor:
    """Lay out row by row or column by column without gaps: other layouts take oneDNN a thousand times as long."""
    if x.is_contiguous() or (x.dim() == 2 and x.t().is_contiguous()):
        return x
    return x.contiguous()


_HAS_OPERATOR = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Say whether `linear` of these goes through oneDNN."""
    return (
        _HAS_OPERATOR
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and x.dim() > 1
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
