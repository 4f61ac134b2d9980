"""The forgery mask that belongs to a dataset dict."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils.logger import log_first_n

from ddl_d2.data.image_io import MAX_PIXELS, read_row_mask


class ForgeryMask(NamedTuple):
    """`mask` bool H x W, True = forged; `resized` if the file had another size than the picture."""

    mask: np.ndarray
    resized: bool


def read_forgery_mask(
    row: Mapping[str, Any], height: int, width: int, *, max_pixels: int = MAX_PIXELS
) -> ForgeryMask | None:
    """The ground truth of a picture of `height` x `width` pixels, or None if it is not known.

    Real: empty, and no file is read. Fake with `mask_file_name`: that file, or frame `frame_index` of it if it is a
    video; if its size differs from the picture's it is resized (nearest) with one warning per process. Fake with
    `fully_forged`: forged everywhere. Fake without either, and a picture without a label: None.

    Raises:
        ImageReadError: the mask file cannot be read.
    """
    label = row.get("is_fake")
    if label == 0:
        return ForgeryMask(np.zeros((height, width), dtype=bool), False)
    if label is None:
        return None
    path = row.get("mask_file_name")
    if not path:
        return ForgeryMask(np.ones((height, width), dtype=bool), False) if row.get("fully_forged") else None
    mask = read_row_mask(row, max_pixels=max_pixels)
    if mask.shape == (height, width):
        return ForgeryMask(mask, False)
    log_first_n(
        logging.WARNING,
        f"{path}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its picture {width} x {height}. "
        "It is resized; others are resized without a word: tools/check_dataset.py --deep lists them all.",
        key="caller",
        name=__name__,
    )
    return ForgeryMask(resize_nearest(mask, height, width), True)


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """`mask` (H x W) at another size: each new pixel takes the old one under its centre."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns]
