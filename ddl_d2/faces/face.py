"""A face of an image, and what a face finder is.

Landmarks are numbered as in iBUG 300-W (and dlib): jaw 0-16, brows 17-21 and 22-26, nose 27-35, eyes 36-41 and 42-47,
mouth 48-67, the lower number of each pair on the left side of an upright image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

NUM_LANDMARKS = 68

MIRRORED = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1)),  # jaw, brows
        *(27, 28, 29, 30, *range(35, 30, -1)),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)),  # mouth
    ]
)
"""Where each landmark goes when the image is mirrored: the new landmark i is the old MIRRORED[i]."""
_MIRRORED_FIVE = np.array([1, 0, 2, 4, 3])


@dataclass(frozen=True)
class Face:
    """One face of an image.

    Attributes:
        box: (x0, y0, x1, y1), float pixels.
        landmarks: float64 68×2 of (x, y), pixels; may lie outside the image. A finder without a landmark model
            may give 5×2 instead (eyes, nose tip, corners of the mouth): enough to place a face, not to forge it;
            or none, 0×2.
        score: the finder's confidence; larger is surer, no fixed range.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 0.0

    @property
    def width(self) -> float:
        """Distance between the two ends of the jaw line, in pixels: the unit in which forging is measured.

        The width of the box for a face without 68 landmarks.
        """
        if len(self.landmarks) != NUM_LANDMARKS:
            return self.box[2] - self.box[0]
        return float(np.linalg.norm(self.landmarks[16] - self.landmarks[0]))

    def moved(self, matrix: np.ndarray, *, mirror: bool = False) -> Face:
        """Return the face after the affine map `matrix` (2×3); `mirror` renumbers left and right."""
        points = self.landmarks @ matrix[:, :2].T + matrix[:, 2]
        if mirror:
            points = points[{NUM_LANDMARKS: MIRRORED, 0: slice(0)}.get(len(points), _MIRRORED_FIVE)]
        x0, y0, x1, y1 = self.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ matrix[:, :2].T + matrix[:, 2]
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        return Face((float(left), float(top), float(right), float(bottom)), points, self.score)


class FaceFinder(Protocol):
    """Anything that finds faces. An image without a face is no error: it gives an empty list."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of `image` (uint8 H×W×3 RGB), from left to right."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values that tell what would be found: another model or setting gives other values. For the cache."""
        ...
