"""The index of a dataset on disk, kept so that a million files are listed once.

An index is one `.npz` file (arrays and JSON; nothing that runs code) in $DDL_D2_CACHE, or ~/.cache/ddl_d2. It is used
while the folders and lists it was made from have the modification times they had then: a file added, removed or renamed
changes its folder's. Delete the folder to start afresh.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddl_d2.data.datasets.columns import DatasetColumns, columns_of
from ddl_d2.data.datasets.errors import DatasetReport
from ddl_d2.io.atomic import replacing

FORMAT = 1
# A change within the clock's coarseness of the listing would leave no trace: such an index is not kept.
_SETTLED_NS = 2_000_000_000

_logger = logging.getLogger(__name__)
_said: set[str] = set()

Built = tuple[DatasetColumns, DatasetReport, dict[str, int]]


def cache_folder() -> str:
    """Where indices are kept; "" if there is no home folder."""
    chosen = os.environ.get("DDL_D2_CACHE", "")
    if chosen:
        return chosen
    home = os.path.expanduser("~")
    return os.path.join(home, ".cache", "ddl_d2") if home != "~" else ""


def cached(key: Mapping[str, Any], build: Callable[[], Built]) -> tuple[DatasetColumns, DatasetReport]:
    """What `build` returns, from the cache if nothing has changed.

    Args:
        key: everything the result depends on besides the disk (JSON values).
        build: lists the dataset: rows, report, and the times of modification (ns) of all it was made from.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    folder = cache_folder()
    path = os.path.join(folder, f"index-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz") if folder else ""
    stored = _load(path, text) if path else None
    if stored is not None:
        return stored
    started = time.time_ns()
    rows, report, stamps = build()
    if path and all(started - stamp > _SETTLED_NS for stamp in stamps.values()):
        _store(path, text, rows, report, stamps)
    return rows, report


def _load(path: str, key: str) -> tuple[DatasetColumns, DatasetReport] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta["key"] != key or any(os.stat(name).st_mtime_ns != time for name, time in meta["stamps"].items()):
                return None
            arrays = {name: file[name] for name in meta["arrays"]}
        return columns_of(meta["root"], arrays), DatasetReport.from_dict(meta["report"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        _say_once(f"{path}: not a usable dataset index ({error}); the dataset is listed again")
        return None


def _store(path: str, key: str, rows: DatasetColumns, report: DatasetReport, stamps: dict[str, int]) -> None:
    arrays = rows.arrays
    meta = {
        "key": key,
        "root": rows.root,
        "report": report.to_dict(),
        "stamps": stamps,
        "arrays": list(arrays),
    }
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        _say_once(
            f"the dataset index cannot be kept in {os.path.dirname(path)} ({error.strerror}); datasets are listed anew "
            "each time. Set DDL_D2_CACHE to a folder that can be written."
        )


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        _logger.warning(message)
