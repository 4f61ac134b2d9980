"""Multi-scale deformable attention as an operator of PyTorch, compiled or not.

Source: Zhu et al., "Deformable DETR", arXiv 2010.04159, eq. 3.

Shapes: N images, S pixels of all levels together, H heads, D channels of a head, C = H * D channels, Q queries,
L levels, P points of a level. Locations are (x, y) in [0, 1] over a level; sizes are (height, width) in pixels.

The operator `torch.ops.ddl_d2.ms_deform_attn` exists once this module is imported, compiled or not. It has fake,
autograd and autocast registrations, so that torch.compile, torch.export and torch.autocast know it. Where its compiled
part is missing (`extension_status()` says why), PyTorch code takes its place: same results, slower.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ddl_d2.layers.ms_deform_attn_reference import (
    math_dtype,
    ms_deform_attn_reference,
    ms_deform_attn_reference_backward,
)

__all__ = ["ExtensionStatus", "extension_status", "ms_deform_attn"]

logger = logging.getLogger("ddl_d2")

_ARGUMENTS = (
    "Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights"
)
_BUILD_COMMAND = "pip install --no-build-isolation --no-deps -e . (needs a C++ compiler; DDL_D2_CUDA=1 for CUDA)"


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum bilinear samples by weight: out[n, q, h] = sum over l, p of weight * value_l[n, h] at the location.

    Equal to `grid_sample(align_corners=False, padding_mode="zeros")` on each level: pixel centers lie at
    (i + 0.5) / size, and pixels outside count as 0. A location that is NaN or infinite is outside. Values, and
    weights of any point, that are NaN make the result NaN.

    Args:
        value: [N, S, H, D], the levels one after another, each row by row; float32, float64, float16 or bfloat16.
        spatial_shapes: [L, 2] int64, (height, width) of each level. On the CPU (best, also for a `value` on a GPU:
            it is checked, and nothing waits for the GPU) or on the device of `value`.
        level_start_index: [L] int64, the first pixel of each level in S. Same device as `spatial_shapes`.
        sampling_locations: [N, Q, H, L, P, 2], (x, y), dtype of `value`, or float32 if that has 16 bits.
        attention_weights: [N, Q, H, L, P], dtype of `sampling_locations`.

    Returns:
        [N, Q, H * D] in the dtype of `value`. Under torch.autocast it runs in the dtype of `value`, with locations and
        weights in float32 if that has 16 bits. Sums are in float32 (float64 for float64). Differentiable once, by
        value, locations and weights; the gradient is deterministic on CPUs and not on GPUs (atomic additions).

    Raises:
        RuntimeError: shapes, dtypes, devices or levels do not fit together.
    """
    return torch.ops.ddl_d2.ms_deform_attn(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )


class ExtensionStatus(NamedTuple):
    """What the compiled part, `ddl_d2._C`, offers.

    Attributes:
        available: whether it could be loaded.
        cuda_built: whether it has the CUDA code.
        cpu_capability: "avx512", "avx2" or "portable"; "" if not available.
        reason: why it could not be loaded; "" if it could.
    """

    available: bool
    cuda_built: bool
    cpu_capability: str
    reason: str


def extension_status() -> ExtensionStatus:
    """Say whether the compiled op is in use, with CUDA or not, and why not."""
    if _LOAD_ERROR:
        return ExtensionStatus(False, False, "", _LOAD_ERROR)
    ops = torch.ops.ddl_d2
    return ExtensionStatus(True, ops._cuda_built(), ops._cpu_capability(), "")


def _load_extension() -> str:
    """Load `ddl_d2._C`, which registers the operator. Returns why that did not work, or ""."""
    try:
        importlib.import_module("ddl_d2._C")
    except ModuleNotFoundError as error:
        return f"ddl_d2._C is not compiled ({error})"
    except ImportError as error:
        return f"ddl_d2._C was compiled for another PyTorch or Python; compile it again ({error})"
    return ""


_LOAD_ERROR = _load_extension()
_warned = False


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        missing = _LOAD_ERROR or "ddl_d2._C was compiled without CUDA"
        logger.warning("ms_deform_attn runs as slow PyTorch code: %s. To compile it: %s", missing, _BUILD_COMMAND)


def _fallback(*arguments: Tensor) -> Tensor:
    _warn_once()
    return ms_deform_attn_reference(*arguments)


def _fallback_backward(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _warn_once()
    return ms_deform_attn_reference_backward(*arguments)


def _autocast(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    dtype = math_dtype(value)
    with torch.autocast(value.device.type, enabled=False):
        return ms_deform_attn(
            value, spatial_shapes, level_start_index, sampling_locations.to(dtype), attention_weights.to(dtype)
        )


def _fake(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    images, _, heads, channels = value.shape
    return value.new_empty((images, sampling_locations.shape[1], heads * channels))


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.ddl_d2.ms_deform_attn_backward(grad_output, *ctx.saved_tensors)
    return grads[0], None, None, grads[1], grads[2]


def _no_second_backward(ctx: Any, *grads: Tensor) -> NoReturn:
    raise NotImplementedError(
        "ms_deform_attn has no second derivative (create_graph=True); ms_deform_attn_reference has one"
    )


def _register() -> torch.library.Library:
    library = torch.library.Library("ddl_d2", "FRAGMENT")
    if _LOAD_ERROR:
        library.define(f"ms_deform_attn({_ARGUMENTS}) -> Tensor")
        library.define(f"ms_deform_attn_backward(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
        key = "CompositeExplicitAutograd"
    else:
        key = "" if torch.ops.ddl_d2._cuda_built() else "CUDA"
    if key:
        library.impl("ms_deform_attn", _fallback, key)
        library.impl("ms_deform_attn_backward", _fallback_backward, key)
    for key in ("AutocastCPU", "AutocastCUDA"):
        library.impl("ms_deform_attn", _autocast, key)
    torch.library.register_fake("ddl_d2::ms_deform_attn", _fake, lib=library)
    torch.library.register_fake("ddl_d2::ms_deform_attn_backward", _fake_backward, lib=library)
    torch.library.register_autograd("ddl_d2::ms_deform_attn", _backward, setup_context=_setup_context, lib=library)
    torch.library.register_autograd("ddl_d2::ms_deform_attn_backward", _no_second_backward, lib=library)
    return library


_LIBRARY = _register()  # the registrations live as long as this object
