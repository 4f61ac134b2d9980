"""Checking rows by decoding their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddl_d2.data.mask_fit import MaskOrientationError, MaskShapeError, fit_mask
from ddl_d2.errors import ImageReadError
from ddl_d2.io.clip import read_clip
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.image import inspect_mask, mask_coding
from ddl_d2.io.rows import read_row_image, read_row_mask, read_row_turn

_SEGMENT_SLACK = 0.5  # seconds: sound is often a little longer than the picture


def check_row(row: Mapping[str, Any], *, max_pixels: int) -> list[tuple[str, str]]:
    """Decode the image of a dataset dict and its mask; or its clip, whose segments must end when it does.

    Returns:
        (kind, example) of everything found, kinds of `report.KINDS`.
    """
    name = row["image_id"]
    if "frame_index" not in row and file_kind(row["file_name"]) == "video":
        return _check_clip(row, max_pixels)
    findings = []
    size = None
    try:
        size = read_row_image(row, max_pixels=max_pixels).shape[:2]
    except ImageReadError as error:
        findings.append(("unreadable_image", f"{name}: {error.reason}"))
    if "mask_file_name" not in row:
        return findings
    notes: tuple[str, ...] = ()
    try:
        if file_kind(row["mask_file_name"]) == "video":  # lossy: its gray values tell nothing
            mask = read_row_mask(row, max_pixels=max_pixels)
        else:
            mask, notes = inspect_mask(row["mask_file_name"], max_pixels=max_pixels)
    except ImageReadError as error:
        return [*findings, ("unreadable_mask", f"{name}: {error.reason}")]
    if size is not None:
        findings.extend((kind, f"{name}: {what}") for kind, what in _fit(row, mask, size, max_pixels))
    if "in_alpha" in notes:  # what the other channels say is then no finding
        return [*findings, ("mask_in_alpha", name)]
    if not mask.any():
        is_video = file_kind(row["mask_file_name"]) == "video"
        coding = "" if is_video else f": {mask_coding(row['mask_file_name'], max_pixels=max_pixels)}"
        findings.append(("empty_mask", name + coding))
    kinds = {"coded_01": "mask_coded_01", "soft": "mask_soft", "color": "mask_color", "alpha": "mask_alpha"}
    findings.extend((kinds[note], name) for note in notes if note in kinds)
    if mask.all():
        findings.append(("mask_full", name))
    return findings


def _check_clip(row: Mapping[str, Any], max_pixels: int) -> list[tuple[str, str]]:
    name = row["image_id"]
    try:
        clip = read_clip(row["file_name"], fit=lambda frame: frame[:1, :1], max_pixels=max_pixels)
    except ImageReadError as error:
        return [("unreadable_video", f"{name}: {error.reason}")]
    last = max((end for _, end in row.get("segments", ())), default=0.0)
    if last > clip.duration + _SEGMENT_SLACK:
        return [("segment_outside", f"{name}: {last:.2f} s, the clip ends at {clip.duration:.2f} s")]
    return []


def _fit(row: Mapping[str, Any], mask: np.ndarray, size: tuple[int, int], max_pixels: int) -> list[tuple[str, str]]:
    """What has to be done to a mask to bring it to its image, or why it cannot be."""
    sizes = f"{size[1]} x {size[0]}, mask {mask.shape[1]} x {mask.shape[0]}"
    try:
        fitted = fit_mask(mask, size, read_row_turn(row, max_pixels=max_pixels), path=row["mask_file_name"])
    except MaskShapeError:
        return [("mask_shape", sizes)]
    except MaskOrientationError as error:
        return [("mask_orientation", error.reason)]
    kinds = {"mask_size": fitted.resized, "mask_turned": fitted.turned}
    return [(kind, sizes) for kind, found in kinds.items() if found]
