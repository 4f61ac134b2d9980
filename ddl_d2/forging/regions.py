"""Landmarks to region masks.

A region is a union of convex hulls of landmarks. Its area can be scaled: every hull is scaled about its centroid by
the square root of the factor (self-blending with local displacement, Sci. Rep. 2025, region masks). Landmarks end at
the brows; a face that reaches into the forehead has its brows once more, raised.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_JAW, _LEFT_BROW, _RIGHT_BROW = range(17), range(17, 22), range(22, 27)
_NOSE, _LEFT_EYE, _RIGHT_EYE, _MOUTH = range(27, 36), range(36, 42), range(42, 48), range(48, 68)

REGIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "left_eye": ((*_LEFT_BROW, *_LEFT_EYE),),
    "right_eye": ((*_RIGHT_BROW, *_RIGHT_EYE),),
    "both_eyes": ((*_LEFT_BROW, *_LEFT_EYE), (*_RIGHT_BROW, *_RIGHT_EYE)),
    "eye_band": ((*_LEFT_BROW, *_RIGHT_BROW, *_LEFT_EYE, *_RIGHT_EYE),),
    "brows": ((*_LEFT_BROW,), (*_RIGHT_BROW,)),
    "nose": (tuple(_NOSE),),
    "mouth": (tuple(_MOUTH),),
    "lower_face": ((*range(3, 14), *range(31, 36), *_MOUTH),),
    "face": ((*_JAW, *_LEFT_BROW, *_RIGHT_BROW, *_NOSE, *_LEFT_EYE, *_RIGHT_EYE, *_MOUTH),),
}
"""Region name -> the landmark numbers of each of its hulls. "left" is the left side of an upright image."""

FEATURES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("left_eye", "right_eye", "both_eyes", "brows"), ("eyes",)),
    "eye_band": ("eyes", "nose"),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "lower_face": ("mouth", "nose"),
    "face": ("eyes", "nose", "mouth"),
}
"""Region name -> what of a face its hulls touch, first what it is about. Regions overlap if they share one."""

_SUBPIXEL_BITS = 4


def region_polygons(
    landmarks: np.ndarray, region: str, *, area_factor: float = 1.0, forehead: float = 0.0
) -> list[np.ndarray]:
    """Compute the hulls of a region.

    Args:
        landmarks: float 68×2 of (x, y), pixels.
        region: a key of `REGIONS`.
        area_factor: by which the area of each hull is scaled about its centroid, above 0.
        forehead: how far the hulls reach above the brows, see `raised_brows`; 0 for not at all.

    Returns:
        float64 N×2 polygons.

    Raises:
        ValueError: unknown region, or a factor that is not positive.
    """
    if region not in REGIONS:
        raise ValueError(f"unknown region {region!r}; known: {', '.join(REGIONS)}")
    if area_factor <= 0:
        raise ValueError(f"area_factor must be positive, not {area_factor}")
    polygons = []
    for indices in REGIONS[region]:
        points = landmarks[list(indices)].astype(np.float32)
        if forehead > 0:
            points = np.concatenate([points, raised_brows(landmarks, forehead).astype(np.float32)])
        hull = cv2.convexHull(points)[:, 0].astype(np.float64)
        center = _centroid(hull)
        polygons.append(center + (hull - center) * np.sqrt(area_factor))
    return polygons


def raised_brows(landmarks: np.ndarray, share: float) -> np.ndarray:
    """Compute the brows (10×2 of 68×2 landmarks), moved up by a share of the way from chin to bridge of the nose."""
    up = landmarks[27] - landmarks[8]
    return landmarks[[*_LEFT_BROW, *_RIGHT_BROW]] + up * landmarks.dtype.type(share)


def polygon_mask(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Draw convex polygons (float N×2 of (x, y), pixel centers at whole numbers): bool, of `shape`, True inside."""
    canvas = np.zeros(shape, np.uint8)
    for polygon in polygons:
        points = np.round(polygon * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillConvexPoly(canvas, points, 1, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return canvas.view(bool)


def _centroid(polygon: np.ndarray) -> np.ndarray:
    """Centroid of the area enclosed by `polygon`; the mean of the vertices if it encloses none."""
    moments = cv2.moments(polygon.astype(np.float32))
    if moments["m00"] == 0:
        return polygon.mean(0)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]
