"""Smaller exported files: weights in half precision, or in eight bits with a scale for each output channel.

Sums stay in float32. Forensic traces are faint: with sums in eight bits, or in float16, scores are not those of the
original at all (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

PRECISIONS = ("float32", "float16", "int8")
# Numbers in a tensor from which on it is worth storing it otherwise.
_LARGE = 1024
# Where the output channels of an operator's weights are.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Transpose": 0}


def in_precision(model: ModelProto, precision: str) -> ModelProto:
    """Return a model whose weights are stored in another precision.

    Args:
        model: of `onnx_file.export_onnx`; left as it is.
        precision: "float16", or "int8", in which tensors that are not an operator's weights keep their precision.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS[1:]:
        raise ValueError(f"the precision {precision!r} is not one of {', '.join(PRECISIONS[1:])}")
    smaller = ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    tensors: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for tensor in model.graph.initializer:
        large = tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _LARGE
        axis = _axis(model.graph.node, tensor) if large and precision == "int8" else None
        if large and precision == "float16":
            kept, readers = _halved(tensor)
        elif axis is not None:
            kept, readers = _eight_bits(tensor, axis)
        else:
            kept, readers = [tensor], []
        tensors += kept
        nodes += readers
    network = list(model.graph.node)
    graph.ClearField("initializer")
    graph.ClearField("node")
    graph.initializer.extend(tensors)
    graph.node.extend([*nodes, *network])
    return smaller


def _halved(tensor: TensorProto) -> tuple[list[TensorProto], list[NodeProto]]:
    values = numpy_helper.to_array(tensor).astype(np.float16)
    stored = numpy_helper.from_array(values, f"{tensor.name}.half")
    return [stored], [helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT)]


def _eight_bits(tensor: TensorProto, axis: int) -> tuple[list[TensorProto], list[NodeProto]]:
    values = numpy_helper.to_array(tensor)
    others = tuple(i for i in range(values.ndim) if i != axis)
    peaks = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(peaks > 0, peaks / 127, 1).astype(np.float32)
    steps = np.rint(values / scales).astype(np.int8)
    stored = [
        numpy_helper.from_array(steps, f"{tensor.name}.steps"),
        numpy_helper.from_array(scales.reshape(-1), f"{tensor.name}.scales"),
    ]
    names = [one.name for one in stored]
    return stored, [helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis)]


def _axis(nodes: Iterable[NodeProto], tensor: TensorProto) -> int | None:
    """Return the axis of output channels of a tensor that is read once, as an operator's weights; else None."""
    readers = [node for node in nodes if tensor.name in node.input]
    if len(readers) != 1 or len(tensor.dims) < 2:
        return None
    (reader,) = readers
    if reader.op_type == "Gemm":
        transposed = any(one.name == "transB" and one.i for one in reader.attribute)
        return 0 if transposed else 1
    axis = _CHANNEL_AXIS.get(reader.op_type)
    return axis if axis is None or axis >= 0 else len(tensor.dims) - 1
