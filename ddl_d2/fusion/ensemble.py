"""Weighted averages of several systems' predictions.

Legend: S systems, N images, H x W pixels. Scores and maps are averaged as **probabilities**, not as logits, which is
what the published two-model ensemble does: Y = (w1 y1 + w2 y2) / (w1 + w2). Only the ratio of the weights counts.
"Detection from both, masks from one" is weights 1, 2.5 for the scores and 1, 0 for the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import FusionError
from ddl_d2.predictions.maps import binarize_map

_TIE = 1e-6
"""Levels by which a half may be missed: 0.3 m + 0.7 n must round as (3 m + 7 n) / 10 does, though 0.3 is not exact."""


def check_weights(weights: Sequence[float] | NDArray, systems: int) -> NDArray[np.float64]:
    """Return the weights as (S,) float64.

    Raises:
        FusionError: there is not one for each system, one is negative or not finite, or all are 0.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (systems,):
        raise FusionError(f"{values.size} weights for {systems} systems: give one for each, in their order")
    if not np.isfinite(values).all() or (values < 0).any():
        raise FusionError(f"weights must be finite and not negative, not {' '.join(f'{v:g}' for v in values)}")
    if not values.any():
        raise FusionError("all weights are 0: at least one system must count")
    return values


def average_scores(scores: NDArray[np.float64], weights: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Average fake scores by weight.

    Args:
        scores: (S, N) in [0, 1], P(fake).
        weights: (S,), see `check_weights`.

    Returns:
        (N,) float64 in [0, 1]. With one weight above 0, that system's scores to the last bit; images that all systems
        score alike stay tied.

    Raises:
        FusionError: impossible weights.
    """
    values = check_weights(weights, len(scores))
    used = np.flatnonzero(values)
    if len(used) == 1:
        return scores[used[0]].astype(np.float64)
    # One system after the other, not a matrix product: that may round differently from image to image.
    total = np.zeros(scores.shape[1], np.float64)
    for index in used:
        total += values[index] * scores[index]
    return np.clip(total / values.sum(), 0, 1)


def average_maps(maps: Sequence[NDArray[np.uint8]], weights: Sequence[float] | NDArray) -> NDArray[np.uint8]:
    """Average the stored forgery maps of one image by weight.

    Args:
        maps: S arrays, uint8 H x W, 255 x probability, of equal size.
        weights: (S,), see `check_weights`.

    Returns:
        uint8 H x W, rounded to nearest with halves down, as `predictions.maps.quantize_map` does: a mean probability
        of exactly 0.5 stays authentic. With one weight above 0, a copy of that map.

    Raises:
        FusionError: impossible weights, or maps of unlike sizes or another type.
    """
    values = check_weights(weights, len(maps))
    _check_maps(maps)
    used = np.flatnonzero(values).tolist()
    if len(used) == 1:
        return maps[used[0]].copy()
    total = np.zeros(maps[0].shape, np.float64)
    for index in used:
        total += values[index] * maps[index]
    total /= values.sum()
    return _rounded(total)


def exceeds_on_average(
    maps: Sequence[NDArray[np.uint8]], parts: Sequence[int], threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Compute `binarize_map(average_maps(maps, parts), threshold)` for whole-numbered weights, thirty times as fast.

    Args:
        maps: as for `average_maps`.
        parts: S non-negative integers, not all 0; their sum at most 2^24.
        threshold: in [0, 1).

    Returns:
        Bool H x W, exactly the mask that evaluating the stored average gives.

    Raises:
        FusionError: as `average_maps`.
    """
    check_weights(parts, len(maps))
    _check_maps(maps)
    whole = sum(parts)
    kind = np.uint16 if 255 * whole < 2**16 else np.uint32
    total = np.zeros(maps[0].shape, kind)
    for part, forgery_map in zip(parts, maps, strict=True):
        if part:
            total += np.multiply(forgery_map, kind(part), dtype=kind)
    # The mean rounds, halves down, to more than `level` if it is above level + 1/2: 2 total > (2 level + 1) whole.
    levels = np.arange(256, dtype=np.uint8)
    level = 255 - int(np.count_nonzero(binarize_map(levels, threshold)))
    return total > kind((2 * level + 1) * whole // 2)


def resize_map(forgery_map: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a stored map (uint8, 255 x probability): bilinear between pixel centers, rounded halves down."""
    if forgery_map.shape == (height, width):
        return forgery_map
    wide = cv2.resize(forgery_map.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return _rounded(wide)


def _rounded(levels: NDArray) -> NDArray[np.uint8]:
    """Round values in 0..255 to nearest, halves down; `levels` is used up."""
    levels -= 0.5 + _TIE
    np.ceil(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)


def _check_maps(maps: Sequence[NDArray[np.uint8]]) -> None:
    for forgery_map in maps:
        if forgery_map.dtype != np.uint8 or forgery_map.ndim != 2:
            raise FusionError(f"a stored map is uint8 H x W, not {forgery_map.dtype} {forgery_map.shape}")
        if forgery_map.shape != maps[0].shape:
            raise FusionError(f"the maps are {maps[0].shape} and {forgery_map.shape} pixels: resize them first")
