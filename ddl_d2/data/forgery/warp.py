"""Displacing the content of a picture: local drags and small affine moves, by inverse mapping.

Source: local translation warp of the local-displacement self-blending paper (Sci. Rep. 2025). Around a centre c with
radius r, dragged towards m, a point x with |x - c| < r shows what was at u:

    alpha = ((r² - |x - c|²) / ((r² - |x - c|²) + |m - c|²))²,    u = x - alpha (m - c)

Outside the circle u = x. Content therefore moves *towards* m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True)
class Drag:
    """A local translation: content at `centre` moves towards `target` within `radius` (all in pixels)."""

    centre: Point
    target: Point
    radius: float


@dataclass(frozen=True)
class Scale:
    """A similarity move of everything: scale by `factor` about `centre`, then shift by `shift` (pixels)."""

    centre: Point
    factor: float
    shift: Point = (0.0, 0.0)


Displacement = Drag | Scale


def drag_points(points: np.ndarray, drag: Drag) -> np.ndarray:
    """Where the local warp samples: u for every x.

    Args:
        points: float ...×2 of (x, y), pixels.

    Returns:
        float64 ...×2.

    Raises:
        ValueError: the radius is not positive.
    """
    if drag.radius <= 0:
        raise ValueError(f"a drag needs a positive radius, not {drag.radius}")
    points = np.asarray(points, dtype=np.float64)
    centre, target = np.asarray(drag.centre, np.float64), np.asarray(drag.target, np.float64)
    move = target - centre
    inside = np.maximum(drag.radius**2 - ((points - centre) ** 2).sum(-1), 0.0)
    total = inside + (move**2).sum()
    alpha = np.divide(inside, total, out=np.zeros_like(inside), where=total > 0) ** 2
    return points - alpha[..., None] * move


def scale_points(points: np.ndarray, scale: Scale) -> np.ndarray:
    """Where a `Scale` samples: the inverse of the move, for float ...×2 points.

    Raises:
        ValueError: the factor is not positive.
    """
    if scale.factor <= 0:
        raise ValueError(f"a scale needs a positive factor, not {scale.factor}")
    centre = np.asarray(scale.centre, np.float64)
    return (np.asarray(points, np.float64) - np.asarray(scale.shift) - centre) / scale.factor + centre


def displaced_points(points: np.ndarray, displacements: Sequence[Displacement]) -> np.ndarray:
    """Where a picture displaced by all of `displacements`, in this order, samples the original.

    The maps are composed exactly, so that a picture is interpolated once however many moves it undergoes.
    """
    points = np.asarray(points, np.float64)
    for displacement in reversed(displacements):
        if isinstance(displacement, Drag):
            points = drag_points(points, displacement)
        else:
            points = scale_points(points, displacement)
    return points


def displace(image: np.ndarray, displacements: Sequence[Displacement]) -> np.ndarray:
    """`image` (uint8 H×W×3 or H×W) after `displacements`, bilinear; what leaves the picture is reflected in."""
    if not displacements:
        return image.copy()
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    sources = displaced_points(grid, displacements).astype(np.float32)
    return cv2.remap(image, sources[..., 0], sources[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
