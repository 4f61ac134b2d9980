"""The weights that come with ddl_d2, and the digest by which weights are told to be whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ddl_d2.checkpoint.saving import read_metadata
from ddl_d2.errors import CheckpointError

DEFAULT_WEIGHTS = "eyes_lite0"
"""What is used where no weights are named."""

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_weights(name: str = DEFAULT_WEIGHTS) -> Path:
    """Find weights that come with ddl_d2: inside an installed package, or beside the package in a checkout.

    Args:
        name: one of `list_weights`.

    Raises:
        CheckpointError: there are none of this name; lists those there are.
    """
    path = _folder() / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(list_weights())
        raise CheckpointError(f"{name}: no such weights file, and none of that name comes with ddl_d2 (there: {known})")
    return path


def list_weights() -> list[str]:
    """Return the names of the weights that come with ddl_d2, sorted."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def find_weights(weights: str | os.PathLike[str] | None) -> str:
    """Turn what a user named into a path or address: a file, one of `list_weights`, or None for the default.

    Raises:
        CheckpointError: a bare name (no folder, no ending) that is neither a file here nor one of `list_weights`.
    """
    text = os.fspath(weights or DEFAULT_WEIGHTS)
    if os.path.exists(text) or not re.fullmatch(r"[\w-]+", text):
        return text
    return str(shipped_weights(text))


def find_calibration(calibration: str | os.PathLike[str]) -> str:
    """Turn what a user named into a path: a calibration file, or the name of one that comes with ddl_d2.

    Raises:
        CheckpointError: a bare name (no folder, no ending) that is neither.
    """
    text = os.fspath(calibration)
    if os.path.exists(text) or not re.fullmatch(r"[\w-]+", text):
        return text
    path = _folder() / f"{text}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _folder().glob("*.json")))
        raise CheckpointError(
            f"{text}: no such calibration file, and none of that name comes with ddl_d2 (there: {known})"
        )
    return str(path)


def about_weights(path: str | os.PathLike[str]) -> str:
    """What a `.safetensors` file says of itself, name and description; empty if it says nothing."""
    if not str(path).endswith(".safetensors"):
        return ""
    metadata = read_metadata(path)
    return ": ".join(filter(None, (metadata.get("name"), metadata.get("description"))))


def check_digest(weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Compare tensors with the digest that their `.safetensors` file states, if it states one.

    Raises:
        CheckpointError: they are not those for which it was written.
    """
    if not str(path).endswith(".safetensors"):
        return
    stated = read_metadata(path).get("sha256")
    if stated is not None and stated != digest(weights):
        raise CheckpointError(
            f"{path}: its tensors are not those that were released (their sha256 differs from the stated one): "
            "the file was changed or damaged; get it again"
        )


def digest(weights: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors: of their names in order, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.detach().cpu().numpy().tobytes())
    return total.hexdigest()


def _folder() -> Path:
    inside = _PACKAGE / "weights"
    return inside if inside.is_dir() else _PACKAGE.parent / "weights"
