"""Bringing what the host has made to the device of a network, without waiting for either."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to `device`; a GPU is given the copy to do, and nobody waits for it.

    From ordinary memory a copy to a GPU waits for all that the GPU still has to do: the tensor goes by way of pinned
    memory, unless it lies there already.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_device(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Make a tensor of Python's numbers on `device`, see `to_device`."""
    return to_device(torch.tensor(values, dtype=dtype), device)
