"""Arithmetic of time segments [start, end]: union, overlap, and soft non-maximum suppression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Time = TypeVar("Time", int, float)


def union(*lists: Iterable[tuple[Time, Time]]) -> tuple[tuple[Time, Time], ...]:
    """Merge segments that overlap or touch, in order of time."""
    merged: list[tuple[Time, Time]] = []
    for start, end in sorted(segment for segments in lists for segment in segments):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def overlaps(segments: Array, others: Array) -> Array:
    """Return the intersection over union of segments with others, which are [start, end], float ...×2, broadcast.

    The union is taken as the distance from the first start to the last end, as the published metrics do; for segments
    that do not touch the intersection, and so the result, is 0. Two segments of no length have no overlap.
    """
    intersection = np.minimum(segments[..., 1], others[..., 1]) - np.maximum(segments[..., 0], others[..., 0])
    hull = np.maximum(segments[..., 1], others[..., 1]) - np.minimum(segments[..., 0], others[..., 0])
    return np.divide(intersection.clip(min=0), hull, out=np.zeros_like(hull), where=hull > 0)


def soft_nms(
    candidates: Array, *, alpha: float, t1: float, t2: float, unit: float = 1.0, limit: int, keep_last: bool = True
) -> Array:
    """Order candidates by confidence, and lower those that repeat what a better one has said.

    Again and again the best that is left is taken (the first of equals); every other whose overlap with it exceeds
    t1 + (t2 - t1) · its width in seconds has its confidence multiplied by exp(-overlap² / alpha). Source: Cai et al.
    2023 (BA-TFD+), after BSN (Lin et al. 2018).

    Args:
        candidates: float K×3, [confidence, start, end].
        alpha: how mild the lowering is, see above.
        t1: see above.
        t2: see above.
        unit: seconds that a distance of 1 in `candidates` lasts.
        limit: how many are kept at most.
        keep_last: False: the last that is left is never taken, as in the published code.

    Returns:
        float at most `limit`×3, by falling confidence.
    """
    left = np.array(candidates, dtype=np.float64).reshape(-1, 3)
    kept: list[Array] = []
    while len(left) > (0 if keep_last else 1) and len(kept) < limit:
        best = int(left[:, 0].argmax())
        taken = left[best].copy()
        kept.append(taken)
        left = np.delete(left, best, axis=0)
        overlap = overlaps(left[:, 1:], taken[1:])
        repeats = overlap > t1 + (t2 - t1) * (taken[2] - taken[1]) * unit
        left[repeats, 0] *= np.exp(-(overlap[repeats] ** 2) / alpha)
    return np.stack(kept) if kept else np.zeros((0, 3))
