"""Displacing the content of an image: local drags and small affine moves, by inverse mapping.

Source: local translation warp of the local-displacement self-blending paper (Sci. Rep. 2025). Around a center c with
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
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; the ends not included


@dataclass(frozen=True)
class Drag:
    """A local translation: content at `center` moves towards `target` within `radius` (all in pixels)."""

    center: Point
    target: Point
    radius: float


@dataclass(frozen=True)
class Scale:
    """A similarity move of everything: scale by `factor` about `center`, then shift by `shift` (pixels)."""

    center: Point
    factor: float
    shift: Point = (0.0, 0.0)


Displacement = Drag | Scale


def drag_points(points: np.ndarray, drag: Drag) -> np.ndarray:
    """Compute where the local warp samples: u for every x.

    Args:
        points: float ...×2 of (x, y), pixels.
        drag: the local translation.

    Returns:
        float64 ...×2.

    Raises:
        ValueError: the radius is not positive.
    """
    if drag.radius <= 0:
        raise ValueError(f"a drag needs a positive radius, not {drag.radius}")
    points = np.asarray(points, dtype=np.float64)
    center, target = np.asarray(drag.center, np.float64), np.asarray(drag.target, np.float64)
    move = target - center
    inside = np.maximum(drag.radius**2 - ((points - center) ** 2).sum(-1), 0.0)
    total = inside + (move**2).sum()
    alpha = np.divide(inside, total, out=np.zeros_like(inside), where=total > 0) ** 2
    return points - alpha[..., None] * move


def scale_points(points: np.ndarray, scale: Scale) -> np.ndarray:
    """Compute where a `Scale` samples: the inverse of the move, for float ...×2 points.

    Raises:
        ValueError: the factor is not positive.
    """
    if scale.factor <= 0:
        raise ValueError(f"a scale needs a positive factor, not {scale.factor}")
    center = np.asarray(scale.center, np.float64)
    return (np.asarray(points, np.float64) - np.asarray(scale.shift) - center) / scale.factor + center


def moved_points(points: np.ndarray, scale: Scale) -> np.ndarray:
    """Compute where a `Scale` takes points (float ...×2): what `scale_points` undoes."""
    center = np.asarray(scale.center, np.float64)
    return center + scale.factor * (np.asarray(points, np.float64) - center) + np.asarray(scale.shift)


def displaced_points(points: np.ndarray, displacements: Sequence[Displacement]) -> np.ndarray:
    """Compute where an image displaced by all of `displacements`, in this order, samples the original.

    The maps are composed exactly, so that an image is interpolated once however many moves it undergoes.
    """
    points = np.asarray(points, np.float64)
    for displacement in reversed(displacements):
        if isinstance(displacement, Drag):
            points = drag_points(points, displacement)
        else:
            points = scale_points(points, displacement)
    return points


def sampling_maps(box: Box, displacements: Sequence[Displacement]) -> tuple[np.ndarray, np.ndarray]:
    """Compute `displaced_points` for every pixel of a box, fast: each drag only where it can reach.

    Args:
        box: (x0, y0, x1, y1), whole pixels, the ends not included.
        displacements: in the order in which they act.

    Returns:
        The columns and the rows to sample, float32 H×W each, in the image's coordinates.

    Raises:
        ValueError: as `displaced_points`.
    """
    x0, y0, x1, y1 = box
    columns, rows = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
    xs, ys = np.tile(columns, (len(rows), 1)), np.repeat(rows[:, None], len(columns), axis=1)
    strayed = 0.0  # no point has moved farther than this from its pixel
    for move in reversed(displacements):
        if isinstance(move, Scale):
            if move.factor <= 0:
                raise ValueError(f"a scale needs a positive factor, not {move.factor}")
            for values, axis in ((xs, 0), (ys, 1)):
                values -= np.float32(move.shift[axis] + move.center[axis])
                values /= np.float32(move.factor)
                values += np.float32(move.center[axis])
            strayed = np.inf
            continue
        near = _near(box, move, strayed)
        _drag_in_place(xs[near], ys[near], move)
        strayed += float(np.hypot(move.target[0] - move.center[0], move.target[1] - move.center[1]))
    return xs, ys


def _near(box: Box, drag: Drag, strayed: float) -> tuple[slice, slice]:
    """The rows and columns of a box whose points may lie in the drag's circle, having strayed so far."""
    if drag.radius <= 0:
        raise ValueError(f"a drag needs a positive radius, not {drag.radius}")
    if not np.isfinite(strayed):
        return slice(None), slice(None)
    reach = drag.radius + strayed + 1
    (x, y), (x0, y0, _, _) = drag.center, box
    return (
        slice(max(0, int(y - reach) - y0), max(0, int(np.ceil(y + reach)) + 1 - y0)),
        slice(max(0, int(x - reach) - x0), max(0, int(np.ceil(x + reach)) + 1 - x0)),
    )


def _drag_in_place(xs: np.ndarray, ys: np.ndarray, drag: Drag) -> None:
    """`drag_points` on planes of x and y."""
    move_x, move_y = drag.target[0] - drag.center[0], drag.target[1] - drag.center[1]
    squared = np.float32(move_x**2 + move_y**2)
    if squared == 0:
        return
    from_x, from_y = xs - np.float32(drag.center[0]), ys - np.float32(drag.center[1])
    inside = np.maximum(np.float32(drag.radius**2) - from_x * from_x - from_y * from_y, 0)
    alpha = np.square(inside / (inside + squared))
    xs -= alpha * np.float32(move_x)
    ys -= alpha * np.float32(move_y)


def sampled_box(maps: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Box:
    """Compute the smallest box of an image of `shape` (H, W) that bilinear sampling at `maps` looks at."""
    (height, width), (xs, ys) = shape, maps
    x0, y0 = (int(np.clip(np.floor(v.min()) - 1, 0, n - 1)) for v, n in ((xs, width), (ys, height)))
    x1, y1 = (int(np.clip(np.ceil(v.max()) + 2, 1, n)) for v, n in ((xs, width), (ys, height)))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def sample(image: np.ndarray, maps: tuple[np.ndarray, np.ndarray], origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Sample an image, bilinear; beyond its edges it is reflected.

    Args:
        image: uint8 H×W×3 or H×W.
        maps: columns and rows to sample, from `sampling_maps`.
        origin: (x, y) of the image's first pixel in the coordinates of `maps`.
    """
    xs, ys = maps[0] - np.float32(origin[0]), maps[1] - np.float32(origin[1])
    return cv2.remap(image, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def affine_view(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp `image` (uint8 H×W×3) by `matrix` (2×3) to `size` (width, height); beyond its edges it is reflected."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.7:  # a bilinear warp would alias: shrink first
        height, width = image.shape[:2]
        small = (max(1, round(width * scale * 1.2)), max(1, round(height * scale * 1.2)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([width / small[0], height / small[1], 1.0])
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
