"""Forgeries that know nothing of faces: a rectangle copied to another place, or painted over from around it.

Source: the augmentation of Mesorch and of the IMDL benchmark (random copy-move, random inpainting).
"""

from __future__ import annotations

import cv2
import numpy as np

from ddl_d2.config.forgery_options import Range

SIDES: Range = (0.05, 0.8)
"""Sides of a rectangle, as shares of the image's (smallest, largest)."""
_RADIUS = 3.0  # of the neighborhood that a pixel is filled from
_LONGEST_FILLED = 512  # a hole of millions of pixels would take minutes, and what fills it is smooth anyway


def copy_move(image: np.ndarray, rng: np.random.Generator, sides: Range = SIDES) -> tuple[np.ndarray, np.ndarray]:
    """Copy a random rectangle to another random place.

    Args:
        image: uint8 H×W×3; not changed.
        rng: the only source of randomness.
        sides: of the rectangle, as shares of H and of W.

    Returns:
        The forged image, and the mask of where the copy lies, bool H×W: all False if the two places are one.
    """
    height, width = _drawn_sides(image, rng, sides)
    from_rows, from_columns = _drawn_place(image, height, width, rng)
    rows, columns = _drawn_place(image, height, width, rng)
    forged, mask = image.copy(), np.zeros(image.shape[:2], bool)
    forged[rows, columns] = image[from_rows, from_columns]
    mask[rows, columns] = (rows, columns) != (from_rows, from_columns)
    return forged, mask


def inpaint(image: np.ndarray, rng: np.random.Generator, sides: Range = SIDES) -> tuple[np.ndarray, np.ndarray]:
    """Paint over a random rectangle by Telea's or by the Navier-Stokes method, each as likely (OpenCV's, radius 3).

    An image with a side above 512 pixels is filled in a copy shrunk to that. Arguments and result as `copy_move`'s.
    """
    rows, columns = _drawn_place(image, *_drawn_sides(image, rng, sides), rng)
    method = (cv2.INPAINT_TELEA, cv2.INPAINT_NS)[int(rng.integers(2))]
    mask = np.zeros(image.shape[:2], bool)
    mask[rows, columns] = True
    if mask.all():  # nothing to fill it from
        return image.copy(), np.zeros_like(mask)
    forged = image.copy()
    forged[rows, columns] = _filled(image, mask, method)[rows, columns]
    return forged, mask


def _filled(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    """The image with a new content of `mask`; elsewhere, roughly itself."""
    height, width = image.shape[:2]
    image = image.copy()
    image[mask] = np.rint(cv2.mean(image, (~mask).view(np.uint8))[:3])  # OpenCV's fillings look at what they cover
    scale = _LONGEST_FILLED / max(height, width)
    if scale >= 1:
        return cv2.inpaint(image, mask.view(np.uint8), _RADIUS, method)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 0
    filled = cv2.inpaint(small, hole.view(np.uint8), _RADIUS, method)
    return cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)


def _drawn_sides(image: np.ndarray, rng: np.random.Generator, sides: Range) -> tuple[int, int]:
    """(height, width) of a rectangle, at least one pixel each."""
    low, high = sides
    height, width = (max(1, round(side * float(rng.uniform(low, high)))) for side in image.shape[:2])
    return height, width


def _drawn_place(image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a rectangle, anywhere inside the image."""
    top, left = int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)
