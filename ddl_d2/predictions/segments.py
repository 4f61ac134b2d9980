"""The forged segments of clips, as a prediction store and the challenges' files have them.

{"<image_id>": [[confidence, start, end], ...], ...}      seconds, by falling confidence
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import StoreError

_DIGITS = 6  # microseconds; a store of a million clips is three times larger without


def check_segments(segments: NDArray[np.floating], image_id: str) -> NDArray[np.float64]:
    """Return segments as float64 K×3.

    Raises:
        StoreError: they are no [confidence, start, end] with confidences in [0, 1] that fall, and starts before ends.
    """
    found = np.asarray(segments, dtype=np.float64)
    if found.size == 0:
        return np.zeros((0, 3))
    if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
        raise StoreError(f"{image_id}: segments are finite [confidence, start, end], got an array {found.shape}")
    confidence, start, end = found.T
    if confidence.min() < 0 or confidence.max() > 1 or (np.diff(confidence) > 0).any():
        raise StoreError(f"{image_id}: the confidences of segments are numbers in [0, 1] that fall")
    if (end < start).any() or start.min() < 0:
        raise StoreError(f"{image_id}: a segment starts before 0, or ends before it starts")
    return found


def rounded(segments: NDArray[np.float64]) -> list[list[float]]:
    """Return segments as lists for JSON, to six digits."""
    return np.round(segments, _DIGITS).tolist()


def read_segments(path: str | os.PathLike[str], ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read a file of segments.

    Args:
        path: the JSON file.
        ids: of the clips that it has to be about.

    Returns:
        {image_id: float64 K×3}.

    Raises:
        StoreError: it cannot be read, or is about other clips, or a clip's segments are none (`check_segments`).
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: expected an object of clips")
    if difference := sorted(set(ids).symmetric_difference(content)):
        state = "missing" if difference[0] in set(ids) else "unexpected"
        raise StoreError(f"{path}: {len(difference)} clips differ from the store's; {difference[0]} is {state}")
    try:
        return {image_id: check_segments(content[image_id], image_id) for image_id in ids}
    except (TypeError, ValueError) as error:  # StoreError included
        raise StoreError(f"{path}: {error}") from error
