"""Where a swap-like forgery lies: hulls of the whole face, with or without forehead, bent and feathered."""

from __future__ import annotations

import cv2
import numpy as np

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.regions import raised_brows

_JAW, _CHIN, _INNER = slice(2, 15), slice(4, 13), slice(17, 68)
_BROWS, _NOSE, _EYES, _MOUTH = slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)


def swap_hull(points: np.ndarray, shape: tuple[int, int], draw: Draw, options: SwapOptions) -> np.ndarray:
    """The outline of what is pasted: uint8 H×W, 0 or 255; from landmarks float32 68×2."""
    outline = _part(points, draw) if draw.chance(options.part_prob) else _whole(points, draw, options)
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(outline).astype(np.int32)), 255)
    return mask


def _whole(points: np.ndarray, draw: Draw, options: SwapOptions) -> np.ndarray:
    kind = float(draw.rng.random())
    if kind < options.forehead_prob:
        return np.concatenate([points, raised_brows(points, draw.within((0.05, 0.4)))])
    if kind < options.forehead_prob + options.inner_prob:
        if draw.chance(0.4):
            return points[_INNER]
        center = points[_INNER].mean(0)
        jaw = center + (points[_JAW] - center) * np.float32(draw.within((0.7, 1.0)))
        return np.concatenate([jaw, points[_INNER]])
    return points


def _part(points: np.ndarray, draw: Draw) -> np.ndarray:
    parts = (
        [points[_EYES]],
        [points[_EYES], points[_BROWS]],
        [points[_NOSE]],
        [points[_MOUTH]],
        [points[_MOUTH], points[_CHIN]],
        [points[_EYES], points[_NOSE], points[_MOUTH]],
    )
    part = np.concatenate(draw.one_of(parts))
    center = part.mean(0)
    return center + (part - center) * np.float32(draw.within((1.05, 1.6)))


def bent_mask(mask: np.ndarray, width: float, draw: Draw, options: SwapOptions) -> np.ndarray:
    """The mask with its outline moved by smooth noise; `width` of the face in pixels."""
    height, wide = mask.shape
    moves = cv2.GaussianBlur(draw.noise((height // 4 + 2, wide // 4 + 2, 2), 1.0), (0, 0), draw.within((3.0, 8.0)))
    moves *= np.float32(width * draw.within(options.elastic) / (np.abs(moves).max() + 1e-6))
    fine = cv2.resize(moves, (wide, height), interpolation=cv2.INTER_LINEAR)
    map_x = fine[..., 0] + np.arange(wide, dtype=np.float32)
    map_y = fine[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR)


def feathered(mask: np.ndarray, width: float, draw: Draw, options: SwapOptions) -> np.ndarray:
    """uint8 H×W -> float32 H×W in [0, 1], highest 1: from a seam of a pixel to a wide slope, grown or shrunk."""
    soft = mask.astype(np.float32) / 255
    soft = cv2.GaussianBlur(soft, (0, 0), max(0.3, width * draw.within(options.feather)))
    if draw.chance(0.5):
        slope, level = draw.within((1.0, 2.5)), draw.within((0.2, 0.7))
        soft = np.clip((soft - 0.5) * slope + level, 0, 1)
        # Where the level lifts the far background off zero, nothing may be forged there.
        soft = soft * cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3), np.uint8)), (0, 0), 2.0) / np.float32(255)
        soft = cv2.GaussianBlur(soft, (0, 0), max(0.3, width * draw.within(options.feather) / 2))
    soft[soft < 2 / 255] = 0
    return soft / max(float(soft.max()), 1e-6)
