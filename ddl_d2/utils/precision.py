"""The floating-point type that the network computes in, and compiling it."""

from __future__ import annotations

import torch
from torch import nn

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = tuple(_DTYPES)
"""What TEST.PRECISION and `autocast` take."""


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the context in which a model computes in `precision`, one of `PRECISIONS`; weights stay as they are."""
    dtype = _DTYPES[precision]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None)


def compile_parts(model: nn.Module) -> None:
    """Compile the parts of `model` that are pure functions of tensors, with torch.compile; names of parameters stay.

    The query decoder and the losses stay as they are: their shapes depend on how many regions are forged.
    """
    for name, part in model.named_modules():
        if name in ("backbone", "sem_seg_head.pixel_decoder", "segmentor.head.pixel_decoder"):
            part.compile()
