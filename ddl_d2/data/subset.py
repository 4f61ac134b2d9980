"""A part of a dataset that stands for the whole: the same rows for every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddl_d2.data.datasets.columns import DatasetColumns, FrameColumns

_SEED = 20240917


def subset_of(rows: Sequence[dict[str, Any]], labels: np.ndarray, size: int) -> np.ndarray | None:
    """Choose rows at random, of each class as many as its share is, videos whole.

    Which they are depends on the rows and `size` only: every evaluation, run and machine sees the same.

    Args:
        rows: dataset dicts.
        labels: 0 real, 1 fake, -1 unknown, of each.
        size: how many at most, but for one image (or video) of each class; 0: all.

    Returns:
        the indices of the rows chosen, sorted; None for all, also where there are no more than `size`.
    """
    if not size or len(rows) <= size:
        return None
    units, generator = _units(rows), np.random.default_rng(_SEED)
    chosen: list[np.ndarray] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        names, of_member, counts = np.unique(units[members], return_inverse=True, return_counts=True)
        order = generator.permutation(len(names))
        fitting = np.cumsum(counts[order]) <= size * len(members) / len(rows)
        fitting[0] = True
        chosen.append(members[np.isin(of_member, order[fitting])])
    return np.sort(np.concatenate(chosen))


def _units(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Number what is chosen whole: videos, or images that are no frame of one."""
    if isinstance(rows, FrameColumns):
        return rows.videos
    if isinstance(rows, DatasetColumns):
        return np.arange(len(rows))
    names: dict[Any, int] = {}
    return np.array([names.setdefault(row.get("video_id", index), len(names)) for index, row in enumerate(rows)])
