"""Comparing an exported model with its original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ddl_d2.errors import ExportError
from ddl_d2.forging.photos import builtin_photos
from ddl_d2.inference.onnx_predictor import OnnxPredictor
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.summary import forgery_map_of

TOLERANCE = 1e-4
"""The largest difference of a score or of a map's pixel that is let through."""

_SIZES = ((97, 131), (160, 160), (240, 320), (333, 257), (480, 640))
_PER_SIZE = 4


class Parity(NamedTuple):
    """The largest differences between two models.

    Attributes:
        images: compared.
        score: of the scores.
        map: of the maps' pixels.
    """

    images: int
    score: float
    map: float


def check_images() -> list[np.ndarray]:
    """Make 20 images of five sizes, uint8 H×W×3, from the photographs that installed packages carry."""
    photos = [photo.read() for photo in builtin_photos()]
    images = []
    for height, width in _SIZES:
        for number in range(_PER_SIZE):
            photo = photos[number % len(photos)]
            share = 1 - 0.2 * (number // 2)  # the whole, and its middle
            top, left = (round(side * (1 - share) / 2) for side in photo.shape[:2])
            part = photo[top : photo.shape[0] - top, left : photo.shape[1] - left]
            images.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))
    return images


def check_parity(exported: OnnxPredictor, original: ForgeryPredictor, images: Sequence[np.ndarray]) -> Parity:
    """Compare two models on whole images; those of one size go through the exported one at once.

    Args:
        exported: the file's.
        original: without a crop.
        images: uint8 H×W×3 RGB.

    Raises:
        ExportError: they differ by more than `TOLERANCE`, or by what is not a number.
    """
    scores, maps = [0.0], [0.0]
    for image, after in zip(images, exported.whole(images), strict=True):
        before = original(image)
        scores.append(abs(after["fake_score"] - before["fake_score"]))
        maps.append(float(np.abs(after["forgery_map"] - forgery_map_of(before)).max()))
    parity = Parity(len(images), float(np.max(scores)), float(np.max(maps)))
    if not max(parity.score, parity.map) <= TOLERANCE:
        raise ExportError(
            f"the exported model differs from the original by {parity.score:.1e} in the score and {parity.map:.1e} in "
            f"the map, on {parity.images} images; {TOLERANCE:g} is allowed. No file was written"
        )
    return parity
