"""This project's operators in the words of ONNX.

Shapes: as in `layers/ms_deform_attn.py`: N images, S pixels of all levels, H heads, D channels of a head, Q queries,
L levels, P points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import FLOAT, INT64, opset20

import ddl_d2.layers.ms_deform_attn  # noqa: F401  registers the operator

# The types of onnxscript's operators are for scripts, not for values that are traced.
op: Any = opset20


def ms_deform_attn(
    value: FLOAT, spatial_shapes: INT64, level_start_index: INT64, sampling_locations: FLOAT, attention_weights: FLOAT
) -> FLOAT:
    """Express the operator by one `GridSample` for each level.

    Args:
        value: N×S×H×D.
        spatial_shapes: L×2.
        level_start_index: L.
        sampling_locations: N×Q×H×L×P×2.
        attention_weights: N×Q×H×L×P.

    Returns:
        N×Q×(H·D).
    """
    shapes: Any = (sampling_locations.shape, value.shape)
    (_, _, heads, levels, *_), (*_, channels) = shapes
    values = op.Transpose(value, perm=[0, 2, 3, 1])  # N×H×D×S
    locations = op.Transpose(sampling_locations, perm=[0, 2, 3, 1, 4, 5])  # N×H×L×Q×P×2
    # Beyond this everything samples zeros, and what GridSample does with numbers too large for an integer is left open.
    grids = op.Sub(op.Mul(op.Clip(locations, -2.0, 3.0), 2.0), 1.0)
    weights = op.Transpose(attention_weights, perm=[0, 2, 3, 1, 4])  # N×H×L×Q×P
    total: Any = None
    for level in range(levels):
        here, after = op.Constant(value_ints=[level]), op.Constant(value_ints=[level + 1])
        size = op.Squeeze(op.Slice(spatial_shapes, here, after, op.Constant(value_ints=[0])), [0])
        start = op.Slice(level_start_index, here, after)
        end = op.Add(start, op.ReduceProd(size, keepdims=1))
        plane = op.Slice(values, start, end, op.Constant(value_ints=[3]))
        image = op.Reshape(plane, op.Concat(op.Constant(value_ints=[-1, channels]), size, axis=0))  # (N·H)×D×h×w
        samples = op.GridSample(image, _of_heads(grids, level), mode="linear", padding_mode="zeros")
        one = op.ReduceSum(op.Mul(samples, op.Unsqueeze(_of_heads(weights, level), [1])), [3], keepdims=0)
        total = one if total is None else op.Add(total, one)  # (N·H)×D×Q
    shape = op.Concat(
        op.Constant(value_ints=[-1, heads * channels]), op.Shape(sampling_locations, start=1, end=2), axis=0
    )
    return op.Transpose(op.Reshape(total, shape), perm=[0, 2, 1])


def _of_heads(x: Any, level: int) -> Any:
    """Take one level of N×H×L×Q×P×..., as (N·H)×Q×P×..."""
    chosen = op.Gather(x, op.Constant(value_int=level), axis=2)
    tail = op.Shape(chosen, start=2)
    return op.Reshape(chosen, op.Concat(op.Constant(value_ints=[-1]), tail, axis=0))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.ddl_d2.ms_deform_attn.default: ms_deform_attn}
"""For `torch.onnx.export(custom_translation_table=...)`."""
