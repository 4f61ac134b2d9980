"""Writing checkpoints and weights so that a crash leaves the old file or the new one, whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddl_d2.errors import CheckpointError, SaveError
from ddl_d2.io.atomic import replacing


def write_safely(target: str, write: Callable[[Any], Any]) -> None:
    """Write a file and have it on the disk; `target` is replaced only once the new file is whole.

    Args:
        target: the file's path; its folder exists.
        write: fills a file open for writing bytes.

    Raises:
        SaveError: the disk is full, the folder is gone, ...
    """
    try:
        with replacing(target, durable=True) as temporary, open(temporary, "wb") as f:
            write(f)
    # torch.save makes a RuntimeError of its own of a file's OSError.
    except (OSError, RuntimeError) as error:
        raise SaveError(f"cannot save {target}: {_reason(error)}. What was saved before is untouched") from error


def save_tensors(target: str, weights: Mapping[str, Tensor], **metadata: object) -> None:
    """Write weights as a `.safetensors` file, as `write_safely` does.

    Args:
        target: the file's path.
        weights: a state dict, on any device; tensors that share memory are each written.
        metadata: what the file says besides, kept as strings; see `read_metadata`.

    Raises:
        SaveError: as `write_safely`.
    """
    # Copies: tensors that share memory are refused, and each has to be found under its own name.
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in weights.items()}
    header = {"format": "pt"} | {key: str(value) for key, value in metadata.items()}
    content = safetensors.torch.save(copies, header)
    write_safely(target, lambda f: f.write(content))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what a `.safetensors` file says besides weights; only its header is read.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as f:
            return f.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{os.fspath(path)}: no such weights file") from error
    except (OSError, SafetensorError) as error:
        reason = str(error).split("\n")[0][:300]
        raise CheckpointError(f"{os.fspath(path)}: not a readable weights file ({reason})") from error


def _reason(error: BaseException) -> str:
    """Return the system's own words for a failed write, or else the first line of the error."""
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).split("\n")[0]
