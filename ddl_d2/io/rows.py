"""Reading the files that a dataset dict names: an image or a frame of a video, and its forgery mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddl_d2.errors import ImageReadError
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.image import MASK_THRESHOLD, read_image, read_image_size, read_image_turn, read_mask
from ddl_d2.io.orientation import UPRIGHT, Turn
from ddl_d2.io.video import count_frames, read_frame, read_video_turn
from ddl_d2.utils.limits import MAX_PIXELS

UNCOUNTED = -1
"""The `frame_index` of the one row that stands for a video whose frames could not be counted: reading it fails."""


def read_row_image(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read the image of a dataset dict: `file_name`, or frame `frame_index` of it where that is a video.

    Returns and raises as `read_image`.
    """
    if file_kind(row["file_name"]) != "video":
        return read_image(row["file_name"], max_pixels=max_pixels)
    if row["frame_index"] == UNCOUNTED:
        count_frames(row["file_name"], max_pixels=max_pixels)  # says why not
        raise ImageReadError(row["file_name"], "could not be read when the dataset was listed: list it again")
    return read_frame(row["file_name"], int(row["frame_index"]), max_pixels=max_pixels)


def read_row_size(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read (height, width) of `read_row_image`'s image; of a video its frame is decoded. Raises as `read_image`."""
    if file_kind(row["file_name"]) == "video":
        return read_row_image(row, max_pixels=max_pixels).shape[:2]
    return read_image_size(row["file_name"], max_pixels=max_pixels)


def read_row_mask(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read the mask of a dataset dict: `mask_file_name`, or frame `frame_index` of it where that is a video.

    Videos are lossy, so no other coding than "128 or more in the largest channel" is guessed at there.

    Returns:
        bool, H x W, True = forged.

    Raises:
        ImageReadError: as `read_image`.
    """
    path = row["mask_file_name"]
    if file_kind(path) == "video":
        return read_frame(path, int(row["frame_index"]), max_pixels=max_pixels).max(axis=2) >= MASK_THRESHOLD
    return read_mask(path, max_pixels=max_pixels)


def read_row_turn(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> Turn:
    """Read how the image of a dataset dict is stored: what turns it upright, if its mask does not say so itself.

    Returns:
        Upright, too, for an image whose mask has an orientation of its own, and for a row without `file_name`.

    Raises:
        ImageReadError: as `read_image`.
    """
    turn = _turn(row["file_name"], max_pixels) if "file_name" in row else UPRIGHT
    return UPRIGHT if turn == UPRIGHT or _turn(row["mask_file_name"], max_pixels) != UPRIGHT else turn


def _turn(path: str, max_pixels: int) -> Turn:
    return (read_video_turn if file_kind(path) == "video" else read_image_turn)(path, max_pixels=max_pixels)
