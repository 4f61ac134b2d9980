"""The index of a dataset on disk, kept so that a million files are listed once.

An index is one `.npz` file (arrays and JSON; nothing that runs code) in `cache_folder("indexes")`. It is used while
the folders, lists and videos that it was made from are as they were then (see `stamps`). Of a dataset of which
something could not be read no index is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.data.datasets.clip_columns import ClipColumns
from ddl_d2.data.datasets.columns import DatasetColumns, FrameColumns
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.stamps import Stamps, unchanged
from ddl_d2.errors import SaveError
from ddl_d2.io.atomic import replacing
from ddl_d2.io.cache_folder import cache_folder

FORMAT = 2

_logger = logging.getLogger(__name__)
_said: set[str] = set()

Built = tuple[DatasetColumns, DatasetReport, Stamps]


def cached(key: Mapping[str, Any], build: Callable[[], Built]) -> tuple[DatasetColumns, DatasetReport]:
    """Return what `build` returns, from the cache if nothing has changed.

    Args:
        key: everything the result depends on besides the disk (JSON values).
        build: lists the dataset: rows, report, and the stamps of all it was made from.

    Returns:
        rows, and the report, which says whether they come from an index.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    path = _path(text)
    stored = _load(path, text) if path else None
    if stored is not None:
        return stored
    started = time.time_ns()
    rows, report, stamps = build()
    if path and stamps.complete and stamps.settled(started):
        _store(path, text, rows, report, stamps)
    return rows, report


def _path(key: str) -> Path | None:
    """Where the index of a key is; None (said once) where there is no folder for it."""
    try:
        return cache_folder("indexes") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    except SaveError as error:
        _say_once(f"dataset indexes cannot be kept, datasets are listed anew each time: {error}")
        return None


def _load(path: Path, key: str) -> tuple[DatasetColumns, DatasetReport] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta["key"] != key or not unchanged(file):
                return None
            arrays = {name: file[name] for name in meta["arrays"]}
        report = DatasetReport.from_dict(meta["report"])
        report.index = path
        return _columns(meta["root"], arrays), report
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        _say_once(f"{path}: not a usable dataset index ({error}); the dataset is listed again")
        return None


def _columns(root: str, arrays: dict[str, np.ndarray]) -> DatasetColumns:
    """The columns that `DatasetColumns.arrays` came from."""
    kinds = {"row_frames": FrameColumns, "clip_frames": ClipColumns}
    return next((kind for name, kind in kinds.items() if name in arrays), DatasetColumns)(root, arrays)


def _store(path: Path, key: str, rows: DatasetColumns, report: DatasetReport, stamps: Stamps) -> None:
    arrays = rows.arrays
    meta = {"key": key, "root": rows.root, "report": report.to_dict(), "arrays": list(arrays)}
    arrays |= stamps.to_arrays()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        _say_once(
            f"the dataset index cannot be kept in {path.parent} ({error.strerror}); datasets are listed anew "
            "each time. Set DDL_D2_CACHE to a folder that can be written."
        )


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _logger.warning(message)
