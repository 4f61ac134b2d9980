"""The fusion of forged segments that several systems found in the same clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import FusionError
from ddl_d2.fusion.stores import AlignedStores
from ddl_d2.utils.segments import soft_nms

SCORE_RULES = ("max", "mean")


def fuse_segments(
    found: Sequence[NDArray[np.float64]],
    *,
    alpha: float = 0.7234,
    t1: float = 0.1968,
    t2: float = 0.4123,
    limit: int = 100,
) -> NDArray[np.float64]:
    """Put the segments of one clip together, and lower those that repeat what a surer one says.

    Args:
        found: by each system, float K×3, [confidence, start, end] in seconds.
        alpha: of `utils.segments.soft_nms`.
        t1: likewise.
        t2: likewise.
        limit: how many are kept at most.

    Returns:
        float at most `limit`×3, by falling confidence.
    """
    return soft_nms(np.concatenate(found), alpha=alpha, t1=t1, t2=t2, limit=limit)


def fused_clip_scores(systems: AlignedStores, rule: str) -> NDArray[np.float64]:
    """Return the score of each clip, float64 N: the "max" or the "mean" of the systems'.

    Raises:
        FusionError: another rule.
    """
    if rule not in SCORE_RULES:
        raise FusionError(f"the score of a clip is the {' or the '.join(SCORE_RULES)} of the systems', not {rule!r}")
    return systems.scores.max(axis=0) if rule == "max" else systems.scores.mean(axis=0)


def fused_segments_of_all(systems: AlignedStores, *, limit: int = 100) -> dict[str, NDArray[np.float64]]:
    """Return the fused segments of every clip, by id.

    Raises:
        FusionError: a store is not about clips.
    """
    if without := [str(store.root) for store in systems.stores if not store.has_segments]:
        raise FusionError(f"no segments in {', '.join(without)}: those stores are not about clips")
    return {
        image_id: fuse_segments([store.segments[image_id] for store in systems.stores], limit=limit)
        for image_id in systems.ids
    }
