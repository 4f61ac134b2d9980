"""A system's network as an ONNX graph of any number and size of images, by way of `torch.export`.

Shapes: `B` images, `H, W` pixels of the padded or stretched batch.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from onnx import ModelProto
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim

from ddl_d2.errors import ExportError
from ddl_d2.export.operators import TRANSLATIONS
from ddl_d2.export.surroundings import AUTHENTIC, FAKE, FORGED, NETWORK_INPUT, SIZES
from ddl_d2.modeling.system import ForgerySystem

OPSET = 20
# Cells (of `size_divisibility` pixels) of the example's sides: different, and neither 1 nor 2, which are special.
_EXAMPLE_CELLS = (3, 5)
_MOST_CELLS = 512


class NetworkOnly(nn.Module):
    """A system as a function of tensors: batch and sizes in, the probabilities that it has out."""

    def __init__(self, system: ForgerySystem) -> None:
        """Take a copy of `system` (in eval mode) with convolutions that an exporter reads fast."""
        super().__init__()
        self.system = copy.deepcopy(system)
        for module in self.system.modules():
            if type(module) is Conv2dSame:
                module.__class__ = _EvenSameConv

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Return those of `Probabilities` that the system has."""
        return tuple(part for part in self.system.probabilities(images, sizes) if part is not None)


class _EvenSameConv(Conv2dSame):
    """TensorFlow's "same" padding where strides divide the sides, as they do in a padded batch: a constant."""

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for side, kernel, stride, dilation in zip(
            x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
        ):
            whole = isinstance(side, int)  # a symbol is a multiple of the strides, a number may be any
            missing = (-(-side // stride) - 1) * stride - side if whole else -stride
            total = max((kernel - 1) * dilation + 1 + missing, 0)
            padding = [total // 2, total - total // 2, *padding]
        x = F.pad(x, padding)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def export_network(system: ForgerySystem) -> ModelProto:
    """Export a system's network.

    Args:
        system: in eval mode, on the CPU.

    Returns:
        a model with the inputs `NETWORK_INPUT`, float B×3×H×W, and `SIZES`, int64 1×2, and as outputs those of `FAKE`,
        float B, `FORGED` and `AUTHENTIC`, float B×H×W, that the system has.

    Raises:
        ExportError: PyTorch cannot export it; says why.
    """
    step = system.size_divisibility
    network = NetworkOnly(system).eval()
    shape = system.fixed_size or [step * cells for cells in _EXAMPLE_CELLS]
    dims: dict[int, Any] = {0: Dim("B", min=1, max=2**20)}
    if system.fixed_size is None:
        dims |= {
            2: step * Dim("cells_down", min=1, max=_MOST_CELLS),
            3: step * Dim("cells_across", min=1, max=_MOST_CELLS),
        }
    images = torch.zeros(2, 3, *shape)
    example = (images, torch.tensor([[side - 3 for side in shape]]))
    with torch.no_grad(), _quiet():
        found = network.system.probabilities(*example)  # also fills what is remembered, which must not hold symbols
        names = [name for name, part in zip((FAKE, FORGED, AUTHENTIC), found, strict=True) if part is not None]
        try:
            program = torch.export.export(
                network,
                example,
                dynamic_shapes=(dims, None),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            exported = torch.onnx.export(
                program,
                input_names=[NETWORK_INPUT, SIZES],
                output_names=names,
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
        except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise ExportError(f"{type(system).__name__}: PyTorch cannot export it ({reason})") from error
    assert exported is not None  # noqa: S101  only of the older exporter
    return exported.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own insides from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
