"""Bringing a forgery mask to its image: turned with it, resized to it, and never stretched to another shape.

An image may be stored turned, and say so by EXIF (a video by its display matrix). Its mask may have been drawn on the
image as it is seen, or as it is stored; a mask that says how it is turned itself has been read upright already.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from ddl_d2.errors import ImageReadError
from ddl_d2.io.orientation import UPRIGHT, Turn, turned

Size = tuple[int, int]


class MaskShapeError(ImageReadError):
    """A mask of another shape than its image."""


class MaskOrientationError(ImageReadError):
    """A mask of which nothing says whether it is turned like its image."""


class FittedMask(NamedTuple):
    """A mask at the size of its image.

    Attributes:
        mask: bool H x W, True = forged.
        resized: whether it had another size.
        turned: whether it had to be turned with its image.
    """

    mask: np.ndarray
    resized: bool
    turned: bool


def fit_mask(mask: np.ndarray, size: Size, turn: Turn, *, path: str | os.PathLike[str]) -> FittedMask:
    """Bring a mask to its image.

    Args:
        mask: bool h x w.
        size: (H, W) of the image, upright.
        turn: of the image as it is stored; upright also where the mask says itself how it is turned.
        path: of the mask, for errors.

    Returns:
        The mask as it is, turned, or resized (nearest) where its aspect ratio is the image's but for rounding.

    Raises:
        MaskShapeError: a mask of another shape.
        MaskOrientationError: the image is turned, the sizes fit both ways, and the two masks would differ.
    """
    stored = size[::-1] if turn.swapped else size
    as_seen, as_stored = _fits(mask.shape, size), turn != UPRIGHT and _fits(mask.shape, stored)
    if as_seen and as_stored and size != stored:
        # The sizes differ by less than a rounding: one of them may be met exactly.
        as_seen, as_stored = mask.shape != stored, mask.shape != size
    upright = _resized(mask, size) if as_seen else None
    if not as_stored:
        if upright is None:
            raise MaskShapeError(path, _of_another_shape(mask.shape, size))
        return FittedMask(upright, mask.shape != size, False)
    moved = _resized(np.ascontiguousarray(turned(mask, turn)), size)
    if upright is not None and not np.array_equal(upright, moved):
        raise MaskOrientationError(
            path,
            "EXIF (or a display matrix) turns or mirrors its image when it is shown, and the sizes do not tell whether "
            "the mask is turned, too: save the image upright, or give the mask the image's EXIF orientation",
        )
    return FittedMask(moved, mask.shape != stored, upright is None)


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask (H x W): each new pixel takes the old one under its center."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns]


def _resized(mask: np.ndarray, size: Size) -> np.ndarray:
    return mask if mask.shape == size else resize_nearest(mask, *size)


def _fits(shape: Size, size: Size) -> bool:
    """Whether two sizes have one aspect ratio, each side of the smaller being rounded by up to a pixel."""
    (height, width), (other_height, other_width) = shape, size
    difference = abs(width * other_height - height * other_width)
    return difference <= max(height, width, other_height, other_width)


def _of_another_shape(shape: Size, size: Size) -> str:
    return (
        f"the mask has {shape[1]} x {shape[0]} pixels, its image {size[1]} x {size[0]}: it is of another shape, and is "
        "not stretched"
    )
