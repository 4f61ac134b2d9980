"""Writing files so that a crash, at any moment, leaves the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_LEFTOVER = re.compile(r".+\.tmp-\d+")


class SaveError(OSError):
    """A file could not be written. What was there before is as it was."""


def write_safely(target: str, write: Callable[[Any], Any]) -> None:
    """Let `write` fill a file beside `target`, have it on the disk, then rename it to `target`.

    Raises:
        SaveError: the disk is full, the folder is gone, ...
    """
    temporary = f"{target}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
        _sync_folder(os.path.dirname(target) or ".")
    # torch.save makes a RuntimeError of its own of a file's OSError.
    except (OSError, RuntimeError) as error:
        raise SaveError(f"cannot save {target}: {_reason(error)}. What was saved before is untouched") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


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


def remove_leftovers(folder: str) -> list[str]:
    """Delete what interrupted calls of `write_safely` left in `folder`; -> names."""
    names = sorted(name for name in os.listdir(folder) if _LEFTOVER.fullmatch(name))
    for name in names:
        os.remove(os.path.join(folder, name))
    return names


def _sync_folder(folder: str) -> None:
    """Have the new name itself on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing; the file is there all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).split("\n")[0]
