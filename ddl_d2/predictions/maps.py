"""Forgery maps: from probabilities to the 8 bits that are stored, and to forged pixels. H x W pixels of one image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def binarize_map(forgery_map: NDArray, threshold: float = 0.5) -> NDArray[np.bool_]:
    """Tell the forged pixels of a forgery map: probability > threshold, strictly.

    Args:
        forgery_map: H x W, float probabilities in [0, 1], or uint8 as stored, where v stands for v / 255. At the
            default threshold a stored value is forged from 128 on (127.5 is the threshold itself).
        threshold: in [0, 1).

    Returns:
        Bool H x W.

    Raises:
        ValueError: a map of another type.
    """
    if forgery_map.dtype == np.uint8:
        return forgery_map > math.floor(threshold * 255)
    if not np.issubdtype(forgery_map.dtype, np.floating):
        raise ValueError(f"a forgery map is float in [0, 1] or uint8, not {forgery_map.dtype}")
    return forgery_map > threshold


def quantize_map(forgery_map: NDArray) -> NDArray[np.uint8]:
    """Store a forgery map in 8 bits: 255 times the probability, rounded to nearest, halves down.

    Halves go down so that `binarize_map` gives the same mask at threshold 0.5 before and after: a probability of
    exactly 0.5 (127.5) is authentic both ways.

    Args:
        forgery_map: float H x W in [0, 1]; values outside are clipped.

    Raises:
        ValueError: the map contains NaN.
    """
    if np.isnan(forgery_map).any():
        raise ValueError("a forgery map contains NaN")
    wide: NDArray[Any] = forgery_map.astype(np.float32 if forgery_map.dtype.itemsize <= 4 else np.float64)
    wide *= 255
    wide -= 0.5
    np.ceil(wide, out=wide)
    np.clip(wide, 0, 255, out=wide)
    return wide.astype(np.uint8)
