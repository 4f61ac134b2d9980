"""Batches of data workers travel through shared memory (/dev/shm): where that is too small, it is said at once."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from ddl_d2.errors import InputError

_FOLDER = Path("/dev/shm")  # noqa: S108  where Linux keeps it; only its size is looked at
_SAID_BY_TORCH = re.compile(r"shared memory|\(shm\)|Bus error|/torch_\d+")


class InSharedMemory:
    """A `collate_fn` that moves a worker's batch to shared memory itself, where a failure reaches the main process.

    Left to the queue it would happen in a thread of the worker: the batch would be lost, and waited for.

    Args:
        collate: makes a batch of the rows.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Any]) -> Any:
        """Make a batch. Raises RuntimeError where there is no room."""
        batch = self.collate(rows)
        if get_worker_info() is not None:
            for tensor in _tensors(batch):
                tensor.share_memory_()
        return batch


def _tensors(value: Any) -> Iterator[Tensor]:
    """Give the tensors in rows: their values, and those of Detectron2's structures."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "get_fields"):  # Instances
        yield from _tensors(value.get_fields())
    elif isinstance(getattr(value, "tensor", None), Tensor):  # BitMasks, Boxes
        yield value.tensor


@contextlib.contextmanager
def explained_shared_memory() -> Iterator[None]:
    """Turn what a loader raises in the block for want of shared memory into one sentence with the remedy.

    Raises:
        InputError: shared memory is too small for the workers' batches.
    """
    try:
        yield
    except RuntimeError as error:
        if not _SAID_BY_TORCH.search(str(error)):
            raise
        size = f" ({shutil.disk_usage(_FOLDER).total / 2**20:.0f} MB)" if _FOLDER.is_dir() else ""
        raise InputError(
            f"shared memory, {_FOLDER}{size}, is too small for the batches of data workers: set "
            "DATALOADER.NUM_WORKERS 0 (or fewer), or give a container more of it (docker run --shm-size 8g)"
        ) from error
