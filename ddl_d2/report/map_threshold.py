"""The threshold of the forgery map that gives the best F1 on a corpus.

Legend: N images; 256 thresholds, one for each value of a stored map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import EvaluationError
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.threads import in_order

_LEVELS = 256


def f1_by_threshold(
    store: PredictionStore, rows: Sequence[Mapping[str, Any]], *, limit: int, workers: int = 2
) -> NDArray[np.float64]:
    """Compute the F1 of fakes' maps at every threshold (N, 256): column k counts the pixels above k / 255 as forged.

    Args:
        store: with maps.
        rows: dataset dicts; of those with a forgery mask `limit` are taken, evenly spread. Fakes with an
            empty mask, or in which no face was found, have no F1 and are left out.
        limit: the most images.
        workers: threads that read maps and masks.

    Raises:
        EvaluationError: a map and its mask have unlike sizes.
        ImageReadError, StoreError: a mask or a map cannot be read.
    """
    masked = [row for row in rows if row.get("is_fake") == 1 and row.get("mask_file_name") and row["image_id"] in store]
    masked = [row for row in masked if row["image_id"] not in store.without_face]
    chosen = [masked[i] for i in np.unique(np.linspace(0, len(masked) - 1, min(limit, len(masked))).astype(int))]
    found = [f1 for f1 in in_order(lambda row: _f1_of(store, row), chosen, workers) if f1 is not None]
    return np.array(found).reshape(-1, _LEVELS)


def _f1_of(store: PredictionStore, row: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """F1 (256,) of one image; None if nothing is forged in it."""
    forgery_map = store.read_map(row["image_id"])
    truth = read_forgery_mask(row, *forgery_map.shape, max_pixels=store.max_pixels)
    if truth is None or not truth.mask.any():
        return None
    if truth.mask.shape != forgery_map.shape:
        raise EvaluationError(f"{row['image_id']}: map {forgery_map.shape} and mask {truth.mask.shape} differ in size")
    hits = _above(forgery_map[truth.mask])
    return 2 * hits / (_above(forgery_map.ravel()) + truth.mask.sum())


def _above(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many values (256,) are above each k."""
    return len(values) - np.cumsum(np.bincount(values, minlength=_LEVELS))


def best_threshold(f1: NDArray[np.float64]) -> float:
    """Choose the threshold, in [0, 1), with the highest mean of (N, 256) F1; the middle between two stored values."""
    # Above the last value nothing is forged.
    return (int(f1.mean(0)[:-1].argmax()) + 0.5) / 255
