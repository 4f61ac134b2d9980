"""Cropping a picture to a face.

Detectors of face forgery see face crops; how much is left around the face decides what traces of the blend are in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddl_d2.data.forgery.faces import Face, FaceFinder

Box = tuple[float, float, float, float]


def face_window(
    box: Box, shape: tuple[int, int], *, margins: Sequence[float] | np.ndarray
) -> tuple[int, int, int, int]:
    """The part of a picture to keep around a face, in whole pixels: (x0, y0, x1, y1), inside the picture, not empty.

    Args:
        box: (x0, y0, x1, y1) of the face, pixels; may lie partly outside.
        shape: (H, W) of the picture.
        margins: kept on the left, top, right and bottom, as shares of the box's width or height.
    """
    height, width = shape
    wide, high = box[2] - box[0], box[3] - box[1]
    x0 = min(max(round(box[0] - margins[0] * wide), 0), width - 1)
    y0 = min(max(round(box[1] - margins[1] * high), 0), height - 1)
    x1 = min(max(round(box[2] + margins[2] * wide), x0 + 1), width)
    y1 = min(max(round(box[3] + margins[3] * high), y0 + 1), height)
    return x0, y0, x1, y1


def crop_to_face(
    image: np.ndarray, mask: np.ndarray, face_box: Box | None, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask cut to a face with `margin` on all sides (see `face_window`); as they are without a face."""
    if face_box is None:
        return image, mask
    x0, y0, x1, y1 = face_window(face_box, image.shape[:2], margins=(margin,) * 4)
    return image[y0:y1, x0:x1], mask[y0:y1, x0:x1]


def largest_box(boxes: Sequence[Box]) -> Box | None:
    """The box of the largest area, the first of equals; None if there is none."""
    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def crop_around(image: np.ndarray, face: Face, *, margins: Sequence[float] | np.ndarray) -> tuple[np.ndarray, Face]:
    """A picture (uint8 H×W×3) cut to the landmarks of one of its faces, and that face in it; see `face_window`."""
    (left, top), (right, bottom) = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    box = (float(left), float(top), float(right), float(bottom))
    x0, y0, x1, y1 = face_window(box, image.shape[:2], margins=margins)
    return np.ascontiguousarray(image[y0:y1, x0:x1]), face.moved(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]))


class LargestFace:
    """The mapper's `crop` function: picture and mask cut to the largest face, as they are without one."""

    def __init__(self, finder: FaceFinder, *, margin: float) -> None:
        """`margin` on every side, as a share of the face's box; at least 0."""
        self.finder, self.margin = finder, margin

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        box = largest_box([face.box for face in self.finder(image)])
        image, mask = crop_to_face(image, mask, box, self.margin)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)
