"""Where the mask of a region lies once its content has been displaced.

The mask goes where the content goes. A move of the whole takes the region's polygons with it (as self-blended images
do: target and mask undergo one affine map), so that what borders on the seam is displaced. A local translation is
shown where it acts: at the rim of a region, such as the contour of a face, softening would take away just what moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ddl_d2.forging.warp import Displacement, Drag, Point, moved_points

_CORNERS = 24


def moved_outline(
    polygons: Sequence[np.ndarray], displacements: Sequence[Displacement], *, margin: float
) -> list[np.ndarray]:
    """Move the polygons of a region with its content, and add circles for its local translations.

    A circle reaches from the center of a translation to `margin` beyond its target: less where nothing moves so far
    out, and less in a region that is itself narrower, which softening wears away less.

    Args:
        polygons: float N×2 of (x, y) each, pixels.
        displacements: of the content, in the order in which they act.
        margin: how much of a rim softening takes, pixels.

    Returns:
        Convex polygons, whose union is the mask.
    """
    moved = list(polygons)
    narrowest = min(min(cv2.minAreaRect(polygon.astype(np.float32))[1]) for polygon in polygons) / 2
    for move in displacements:
        if isinstance(move, Drag):
            length = float(np.hypot(move.target[0] - move.center[0], move.target[1] - move.center[1]))
            moved.append(_circle(move.center, min(length + margin, narrowest, move.radius)))
        else:
            moved = [moved_points(polygon, move) for polygon in moved]
    return moved


def _circle(center: Point, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return np.asarray(center, np.float64) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
