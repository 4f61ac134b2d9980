"""Smaller exported models: half precision, and eight-bit weights and sums."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from ddl_d2.errors import ExportError
from ddl_d2.export.surroundings import IMAGE

PRECISIONS = ("float32", "float16", "int8")
_QUANTIZED = ["Conv", "Gemm", "MatMul"]


def in_precision(model: ModelProto, precision: str, calibration: Sequence[np.ndarray]) -> ModelProto:
    """Return a model whose network computes in another precision; what surrounds it stays in float32.

    Args:
        model: of `onnx_file.export_onnx`.
        precision: "float16", or "int8": weights by channel, and inputs of convolutions and products by the range that
            they have on the calibration images.
        calibration: images as the graph takes them, uint8 H×W×3 RGB; for "int8".

    Raises:
        ExportError: ONNX Runtime's tools cannot convert it.
    """
    around = [node.name for node in model.graph.node if node.name.startswith(("before.", "after."))]
    try:
        return _halved(model, around) if precision == "float16" else _quantized(model, around, calibration)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ExportError(f"{precision}: ONNX Runtime's tools cannot convert this model ({error})") from error


def _halved(model: ModelProto, around: list[str]) -> ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = ModelProto()
    copied.CopyFrom(model)
    return convert_float_to_float16(copied, keep_io_types=True, node_block_list=around)


def _quantized(model: ModelProto, around: list[str], calibration: Sequence[np.ndarray]) -> ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {IMAGE: image[None]}

    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "quantized.onnx"
            quantize_static(
                model,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Products of 7 + 8 bits do not overflow where a processor has no instructions for 8 + 8.
                reduce_range=True,
                nodes_to_exclude=around,
                op_types_to_quantize=_QUANTIZED,
            )
            return onnx.load(target)
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    """Leave out the tools' advice to run another tool of theirs before."""
    return "pre-processing" not in record.getMessage()
