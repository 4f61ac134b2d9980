"""Metrics of forged segments that a system found in clips: average precision and recall, and DDL-AV's score.

A clip is (proposals, truth): float K×3, [confidence, start, end], and float N×2, [start, end], in one unit of time.
Protocols, and how published code differs: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Clip = tuple[NDArray[np.floating], NDArray[np.floating]]

AP_CURVES = ("full", "published")
RECALL_OVERLAPS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The overlaps over which average recall is averaged."""

_AP_WEIGHTS = {0.5: 1, 0.75: 2, 0.9: 2, 0.95: 3}
_AR_WEIGHTS = {30: 1, 20: 2, 10: 2, 5: 3}


def overlap_matrix(proposals: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the overlap of proposals with true segments, float32 K×N: intersection over the hull of both."""
    start, end = (np.asarray(proposals[:, i], dtype=np.float32)[:, None] for i in (1, 2))
    first, last = (np.asarray(truth, dtype=np.float32).reshape(-1, 2)[None, :, i] for i in (0, 1))
    shared = (np.minimum(end, last) - np.maximum(start, first)).clip(min=0)
    hull = np.maximum(end, last) - np.minimum(start, first)
    return np.divide(shared, hull, out=np.zeros_like(hull), where=hull > 0)


def segment_average_precision(clips: Sequence[Clip], overlap: float, *, curve: str = "full") -> float:
    """Return the average precision of all proposals of all clips, AP@overlap.

    In each clip each true segment takes the first proposal, in their order, that overlaps it by more than `overlap`
    and is not taken. The area under precision, made falling from the right, over recall.

    Args:
        clips: proposals in falling confidence.
        overlap: in (0, 1), strictly to be exceeded.
        curve: "full", or "published": without the step from recall 0 to that of the first proposal, as LAV-DF's and
            AV-Deepfake1M's metrics have it; n perfect proposals then have (n - 1) / n.

    Returns:
        in [0, 1]; NaN where there is no true segment, or no proposal.
    """
    total = sum(len(truth) for _, truth in clips)
    if not total:
        return math.nan
    confidence = np.concatenate([np.asarray(proposals)[:, 0] for proposals, _ in clips])
    hit = np.concatenate([_hits(overlap_matrix(*clip) > np.float32(overlap)) for clip in clips])
    if not len(hit):
        return 0.0
    hit = hit[np.argsort(-confidence, kind="stable")]
    hits = hit.cumsum()
    recall, precision = hits / total, hits / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    if curve == "published":
        steps[0] = 0.0
    return float((steps * precision).sum())


def _hits(fits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which proposals are taken by a true segment; `fits`: K×N."""
    taken = np.zeros(len(fits), dtype=bool)
    for column in fits.T:
        free = np.flatnonzero(column & ~taken)
        if len(free):
            taken[free[0]] = True
    return taken


def segment_average_recall(clips: Sequence[Clip], number: int) -> float:
    """Return the share of true segments that the first proposals of their clip find, AR@number.

    Args:
        clips: proposals in falling confidence; a clip with fewer has those.
        number: of proposals of a clip.

    Returns:
        in [0, 1], the mean over `RECALL_OVERLAPS`, strictly to be exceeded; NaN where there is no true segment.
    """
    best = [
        overlap_matrix(proposals[:number], truth).max(axis=0, initial=0.0) for proposals, truth in clips if len(truth)
    ]
    if not best:
        return math.nan
    overlaps = np.concatenate(best)
    return float(np.mean([(overlaps > np.float32(limit)).mean() for limit in RECALL_OVERLAPS]))


def ddl_av_score(auc: float, precisions: Mapping[float, float], recalls: Mapping[int, float]) -> float:
    """Return DDL-AV's score of detection and localization, in [0, 1].

    (AUC + S) / 2 with S = (AP@.5 + 2 AP@.75 + 2 AP@.9 + 3 AP@.95 + AR@30 + 2 AR@20 + 2 AR@10 + 3 AR@5) / 16.

    Args:
        auc: of the clips' scores.
        precisions: {overlap: AP} of fake clips, with 0.5, 0.75, 0.9 and 0.95.
        recalls: {number: AR} of fake clips, with 30, 20, 10 and 5.
    """
    found = sum(weight * precisions[key] for key, weight in _AP_WEIGHTS.items())
    found += sum(weight * recalls[key] for key, weight in _AR_WEIGHTS.items())
    return (auc + found / (sum(_AP_WEIGHTS.values()) + sum(_AR_WEIGHTS.values()))) / 2


def ddl_av_metrics(auc: float, fakes: Sequence[Clip], *, curve: str = "full") -> float:
    """Return `ddl_av_score` of the fake clips of a dataset and the AUC of all; NaN where one is not defined."""
    precisions = {key: segment_average_precision(fakes, key, curve=curve) for key in _AP_WEIGHTS}
    recalls = {key: segment_average_recall(fakes, key) for key in _AR_WEIGHTS}
    return ddl_av_score(auc, precisions, recalls)
