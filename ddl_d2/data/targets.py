"""What a dataset dict says is forged: its forgery mask, and the mask as Detectron2 instance targets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from detectron2.utils.logger import log_first_n

from ddl_d2.data.mask_fit import fit_mask, resize_nearest
from ddl_d2.io.rows import read_row_mask, read_row_turn
from ddl_d2.utils.limits import MAX_PIXELS

__all__ = ["ForgeryMask", "forgery_mask_to_instances", "read_forgery_mask", "resize_nearest"]

MODES = ("union", "connected_components")


def forgery_mask_to_instances(
    mask: np.ndarray,
    *,
    mode: str = "union",
    num_classes: int = 1,
    min_area: int = 16,
    max_instances: int = 100,
) -> Instances:
    """Make the instance targets of one image.

    Args:
        mask: bool H x W, True = forged.
        mode: "union" or "connected_components" (of the forged pixels).
        num_classes: 1 (forged) or 2 (authentic, forged).
        min_area: connected components of fewer pixels are dropped; the union is never dropped for its size.
        max_instances: only so many connected components, the largest, are kept: a speckled mask has thousands.

    Returns:
        Instances of size H x W with `gt_classes` (int64, N) and `gt_masks` (BitMasks, N x H x W), N >= 0.

    Raises:
        ValueError: an unknown mode or number of classes, or a mask that is not bool H x W.
    """
    if mode not in MODES:
        raise ValueError(f"instances mode {mode!r} is not one of {', '.join(MODES)}")
    if num_classes not in (1, 2):
        raise ValueError(f"num_classes must be 1 (forged) or 2 (authentic, forged), not {num_classes}")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a forgery mask is bool H x W, not {mask.dtype} {tuple(mask.shape)}")

    forged = _components(mask, min_area, max_instances) if mode == "connected_components" else [mask]
    forged = [part for part in forged if part.any()]
    authentic = [~mask] if num_classes == 2 and not mask.all() else []
    classes = [0] * len(authentic) + [num_classes - 1] * len(forged)

    height, width = mask.shape
    masks = np.stack(authentic + forged) if classes else np.zeros((0, height, width), dtype=bool)
    instances = Instances((height, width))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances


def _components(mask: np.ndarray, min_area: int, max_instances: int) -> list[np.ndarray]:
    """8-connected blobs of at least `min_area` pixels, in raster order of their first pixel."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= max(min_area, 1))
    if len(kept) > max_instances:
        largest = np.argsort(-areas[kept], kind="stable")[:max_instances]
        kept = np.sort(kept[largest])
    return [labels == index + 1 for index in kept]


class ForgeryMask(NamedTuple):
    """The truth about an image.

    Attributes:
        mask: bool H x W, True = forged.
        resized: whether the file had another size than the image.
    """

    mask: np.ndarray
    resized: bool


def read_forgery_mask(
    row: Mapping[str, Any], height: int, width: int, *, max_pixels: int = MAX_PIXELS
) -> ForgeryMask | None:
    """Read the forgery mask of a dataset dict.

    Real: empty, and no file is read. Fake with `mask_file_name`: that file, or frame `frame_index` of it if it is a
    video, brought to the image (`fit_mask`), with one warning per process where it has to be resized. Fake with
    `fully_forged`: forged everywhere. Fake without either, and an image without a label: not known.

    Args:
        row: the dataset dict.
        height: of its image, pixels.
        width: of its image, pixels.
        max_pixels: the most pixels that the mask may have.

    Returns:
        The mask at the image's size; None if it is not known.

    Raises:
        ImageReadError: the mask file cannot be read, or does not fit its image.
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
    turn = read_row_turn(row, max_pixels=max_pixels)
    fitted = fit_mask(mask, (height, width), turn, path=path)
    if fitted.resized:
        log_first_n(
            logging.WARNING,
            f"{path}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}. "
            "It is resized; others are resized without a word: ddl-d2 check-dataset --deep lists them all.",
            key="caller",
            name=__name__,
        )
    return ForgeryMask(fitted.mask, fitted.resized)
