"""`meta.json` of a prediction store: which configuration, weights and versions the predictions come from."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.errors import StoreError
from ddl_d2.predictions.layout import META
from ddl_d2.version import __version__

FORMAT_VERSION = 1


def make_meta(
    *, config: str = "", weights: str | os.PathLike[str] | None = None, threshold: float = 0.5, **extra: Any
) -> dict[str, Any]:
    """Return the content of `meta.json` for a `PredictionStoreWriter`.

    Args:
        config: the configuration as YAML.
        weights: the file of weights, of which the sha256 is noted; None notes none.
        threshold: in [0, 1); the one the predictions are meant to be used with.
        **extra: JSON values under further names.

    Raises:
        OSError: the weights cannot be read.
    """
    versions = {"ddl_d2": __version__, "python": sys.version.split()[0], "numpy": np.__version__}
    if "torch" in sys.modules:
        versions["torch"] = str(sys.modules["torch"].__version__)
    digest = None if weights is None else file_sha256(weights)
    return {**extra, "config": config, "weights_sha256": digest, "threshold": threshold, "versions": versions}


def read_meta(root: Path) -> dict[str, Any]:
    """Return the content of the `meta.json` of the store `root`.

    Raises:
        StoreError: the file cannot be read, or is not of this format version.
    """
    path = root / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
        raise StoreError(f"{path}: not a prediction store of format version {FORMAT_VERSION}")
    if not isinstance(meta.get("has_maps"), bool) or not isinstance(meta.get("num_images"), int):
        raise StoreError(f"{path}: has_maps or num_images is missing")
    if not isinstance(meta.get("without_face", []), list):
        raise StoreError(f"{path}: without_face is not a list of image ids")
    if not isinstance(meta.get("max_pixels", 1), int):
        raise StoreError(f"{path}: max_pixels is {meta['max_pixels']!r}, not a number of pixels")
    return meta


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
