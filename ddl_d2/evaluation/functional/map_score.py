"""An image score for systems that only localize: what part of the picture their map paints.

Published choices differ: the DDL baselines take the mean of the map, CASIA's entry its maximum (docs/metrics.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAP_SCORES = ("mean", "max", "topk")
"""The ways of `score_from_map`."""


def score_from_map(forgery_map: NDArray, how: str, *, top_fraction: float = 0.01) -> float:
    """A fake score in [0, 1] from a forgery map (H x W in [0, 1], or uint8 standing for v / 255).

    `how`: "mean" of all pixels, "max", or "topk", the mean of the highest `top_fraction` of them (one at least), which
    a single stray pixel cannot decide. Raises ValueError for another `how`, a fraction outside (0, 1] or an empty map.
    """
    if how not in MAP_SCORES:
        raise ValueError(f"an image score comes from the map's {', '.join(MAP_SCORES)}, not {how!r}")
    if not 0 < top_fraction <= 1:
        raise ValueError(f"top_fraction must be in (0, 1], got {top_fraction}")
    if forgery_map.size == 0:
        raise ValueError("the forgery map has no pixels")
    values = forgery_map.reshape(-1)
    if how == "max":
        score = float(values.max())
    elif how == "mean":
        score = float(values.mean(dtype=np.float64))
    else:
        count = max(1, round(top_fraction * values.size))
        score = float(np.partition(values, values.size - count)[values.size - count :].mean(dtype=np.float64))
    return score / 255 if forgery_map.dtype == np.uint8 else score
