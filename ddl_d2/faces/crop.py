"""Cropping an image to its faces.

Detectors of face forgery see face crops; how much is left around the face decides what traces of the blend are in it.

A window is (x0, y0, x1, y1) in whole pixels of the image, x1 and y1 just outside. Two rules make one of a face:

- "box": the face's box, with a margin in shares of its width and height;
- "landmarks": the published crop of LFDL (system S2; the margins of its released code): the box of the eyes, the tip of
  the nose and the corners of the mouth, of width w and height h, with 1.5 · h more on the left and right and 1.5 · w
  more above and below.

A window that takes most of the image is the whole image, and so is that of an image without a face; one that takes
very little of it may be widened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddl_d2.faces.face import NUM_LANDMARKS, Face, FaceFinder

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]

RULES = ("box", "landmarks")
CHOICES = ("all", "largest", "random")
_LANDMARK_MARGIN = 1.5
_NOSE_MARGIN = 5.0


class FaceWindow(NamedTuple):
    """A window, and the face it was made for (in pixels of the whole image; None where none was found)."""

    window: Window
    face: Face | None


class FaceCropper:
    """The mapper's `crop` function: chooses the windows of an image's faces.

    Args:
        finder: finds faces; give one that remembers (`CachedFaceFinder`), it is the slowest step by far.
        choice: "all" faces, from left to right, or one of them: the "largest" (by the area of its box, the first of
            equals) or a "random" one, drawn from `np.random`, which the loader seeds for each sample.
        rule: "box" or "landmarks", see the module.
        margin: with "box", on every side, as a share of the face's box; at least 0.
        whole_above: a window of a larger share of the image's area than this becomes the whole image; 1 for never.
        smallest: a window of a smaller share than this is widened to it, about its center as far as the image goes;
            0 for never.

    Raises:
        ValueError: an unknown choice or rule, or a number out of its limits.
    """

    def __init__(
        self,
        finder: FaceFinder,
        *,
        choice: str = "all",
        rule: str = "box",
        margin: float = 0.25,
        whole_above: float = 0.7,
        smallest: float = 0.0,
    ) -> None:
        if choice not in CHOICES:
            raise ValueError(f"the choice of a face {choice!r} is not one of {', '.join(CHOICES)}")
        if rule not in RULES:
            raise ValueError(f"the rule of face crops {rule!r} is not one of {', '.join(RULES)}")
        if margin < 0 or not 0 < whole_above <= 1:
            raise ValueError(f"the margin {margin:g} must be at least 0, and the share {whole_above:g} in (0, 1]")
        if not 0 <= smallest <= whole_above:
            raise ValueError(f"the smallest share {smallest:g} must lie in [0, {whole_above:g}], that of the whole")
        self.finder, self.smallest = finder, smallest
        self.choice, self.rule, self.margin, self.whole_above = choice, rule, margin, whole_above

    def __call__(self, image: np.ndarray) -> list[FaceWindow]:
        """Choose the windows of an image (uint8 H×W×3 RGB): at least one, each once; exactly one unless "all"."""
        return self.windows(self._chosen(self.finder(image)), image.shape[:2])

    def windows(self, faces: Sequence[Face], shape: tuple[int, int]) -> list[FaceWindow]:
        """Compute the windows of faces in an image of `shape` (H, W): each once; without a face the whole image."""
        if not faces:
            return [FaceWindow((0, 0, shape[1], shape[0]), None)]
        found: dict[Window, FaceWindow] = {}
        for face in faces:
            window = self.window(face, shape)
            found.setdefault(window, FaceWindow(window, face))
        return list(found.values())

    def window(self, face: Face, shape: tuple[int, int]) -> Window:
        """Compute the window of one face in an image of `shape` (H, W)."""
        if self.rule == "landmarks":
            x0, y0, x1, y1 = landmark_window(face.landmarks, shape)
        else:
            x0, y0, x1, y1 = face_window(face.box, shape, margins=(self.margin,) * 4)
        height, width = shape
        share = (x1 - x0) * (y1 - y0) / (height * width)
        if share > self.whole_above:
            return 0, 0, width, height
        return widened((x0, y0, x1, y1), shape, self.smallest) if share < self.smallest else (x0, y0, x1, y1)

    def _chosen(self, faces: list[Face]) -> list[Face]:
        if not faces or self.choice == "all":
            return faces
        if self.choice == "random":
            return [faces[np.random.randint(len(faces))]]
        return [max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))]


def face_window(box: Box, shape: tuple[int, int], *, margins: Sequence[float] | np.ndarray) -> Window:
    """Compute the window of the rule "box", inside the image and not empty.

    Args:
        box: (x0, y0, x1, y1) of the face, pixels; may lie partly outside.
        shape: (H, W) of the image.
        margins: kept on the left, top, right and bottom, as shares of the box's width or height.
    """
    x0, y0, x1, y1 = box
    wide, high = x1 - x0, y1 - y0
    left, top, right, bottom = margins
    return _inside((x0 - left * wide, y0 - top * high, x1 + right * wide, y1 + bottom * high), shape)


def widened(window: Window, shape: tuple[int, int], share: float) -> Window:
    """Widen a window to a share of the area of an image of `shape` (H, W), about its center as far as it goes."""
    (x0, y0, x1, y1), (height, width) = window, shape
    wide = min(math.sqrt(share * height * width * (x1 - x0) / (y1 - y0)), width)
    high = min(share * height * width / wide, height)
    wide = share * height * width / high  # where the height was cut, at most `width`
    left = min(max((x0 + x1 - wide) / 2, 0), width - wide)
    top = min(max((y0 + y1 - high) / 2, 0), height - high)
    return _inside((left, top, left + wide, top + high), shape)


def landmark_window(landmarks: np.ndarray, shape: tuple[int, int]) -> Window:
    """Compute the window of the rule "landmarks", inside the image and not empty.

    Args:
        landmarks: 68×2 or 5×2 of (x, y), pixels. Their box counts as at least one pixel wide and high.
        shape: (H, W) of the image.
    """
    points = five_points(landmarks)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    beside, above = (_LANDMARK_MARGIN * max(float(side), 1.0) for side in (y1 - y0, x1 - x0))
    return _inside((float(x0) - beside, float(y0) - above, float(x1) + beside, float(y1) + above), shape)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Reduce landmarks (68×2, or 5×2 already) to centers of the eyes, tip of the nose, corners of the mouth, 5×2."""
    if len(landmarks) != NUM_LANDMARKS:
        return landmarks
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def nose_points(landmarks: np.ndarray) -> np.ndarray:
    """Select the landmarks of the nose, N×2 of (x, y): nine of 68, or of five its tip."""
    return landmarks[27:36] if len(landmarks) == NUM_LANDMARKS else landmarks[2:3]


def nose_box(points: np.ndarray, shape: tuple[int, int]) -> Box | None:
    """Compute the box of the nose with 5 pixels around it, clipped to the image.

    Source: the facial box of Locate and Verify (Shuai et al., ACM MM 2023).

    Args:
        points: of the nose, N×2 of (x, y), pixels.
        shape: (H, W) of the image.

    Returns:
        (x0, y0, x1, y1), pixels; None where all of it lies outside.
    """
    height, width = shape
    limit = np.array([width, height], dtype=np.float64)
    x0, y0 = (float(v) for v in np.clip(points.min(axis=0) - _NOSE_MARGIN, 0, limit))
    x1, y1 = (float(v) for v in np.clip(points.max(axis=0) + _NOSE_MARGIN, 0, limit))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def cut(pixels: np.ndarray, window: Window) -> np.ndarray:
    """Cut an image or mask (H×W...) to a window; the result is contiguous."""
    x0, y0, x1, y1 = window
    return np.ascontiguousarray(pixels[y0:y1, x0:x1])


def crop_around(image: np.ndarray, face: Face, *, margins: Sequence[float] | np.ndarray) -> tuple[np.ndarray, Face]:
    """Cut an image to the box of a face's landmarks and margins around it.

    Args:
        image: uint8 H×W×3.
        face: one of its faces.
        margins: as of `face_window`.

    Returns:
        The cut image, and the face in it.
    """
    (left, top), (right, bottom) = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    box = (float(left), float(top), float(right), float(bottom))
    window = face_window(box, image.shape[:2], margins=margins)
    return cut(image, window), face.moved(np.array([[1.0, 0.0, -window[0]], [0.0, 1.0, -window[1]]]))


def _inside(box: Box, shape: tuple[int, int]) -> Window:
    """A box in whole pixels, clipped to an image of `shape` (H, W), never empty."""
    height, width = shape
    x0 = min(max(round(box[0]), 0), width - 1)
    y0 = min(max(round(box[1]), 0), height - 1)
    x1 = min(max(round(box[2]), x0 + 1), width)
    y1 = min(max(round(box[3]), y0 + 1), height)
    return x0, y0, x1, y1
