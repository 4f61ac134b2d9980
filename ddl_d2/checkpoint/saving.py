"""Saving what a training has to outlive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddl_d2.errors import SaveError
from ddl_d2.io.atomic import replacing


def write_safely(target: str, write: Callable[[Any], Any]) -> None:
    """Let `write` fill a file that then becomes `target` (`files.replacing`), and have it on the disk.

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
    """Write `weights` as a `.safetensors` file, as `write_safely` does. Values of `metadata` are kept as strings."""
    # Copies: tensors that share memory are refused, and each has to be found under its own name.
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in weights.items()}
    header = {"format": "pt"} | {key: str(value) for key, value in metadata.items()}
    content = safetensors.torch.save(copies, header)
    write_safely(target, lambda f: f.write(content))


def metadata_of(path: str) -> dict[str, str]:
    """What `save_tensors` was given besides weights; {} where the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as f:
            return f.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _reason(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).split("\n")[0]
