"""Checking rows by decoding their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddl_d2.errors import ImageReadError
from ddl_d2.io.file_names import is_video
from ddl_d2.io.image import inspect_mask
from ddl_d2.io.rows import read_row_image, read_row_mask


def check_row(row: Mapping[str, Any], *, max_pixels: int) -> list[tuple[str, str]]:
    """Decode the image of a dataset dict and its mask.

    Returns:
        (kind, example) of everything found, kinds of `report.KINDS`.
    """
    name = row["image_id"]
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
        if is_video(row["mask_file_name"]):  # lossy: its gray values tell nothing
            mask = read_row_mask(row, max_pixels=max_pixels)
        else:
            mask, notes = inspect_mask(row["mask_file_name"], max_pixels=max_pixels)
    except ImageReadError as error:
        return [*findings, ("unreadable_mask", f"{name}: {error.reason}")]
    if size is not None and mask.shape != size:
        findings.append(("mask_size", f"{name}: {size[1]} x {size[0]}, mask {mask.shape[1]} x {mask.shape[0]}"))
    if not mask.any():
        findings.append(("empty_mask", name))
    kinds = {"coded_01": "mask_coded_01", "soft": "mask_soft", "color": "mask_color", "alpha": "mask_alpha"}
    findings.extend((kinds[note], name) for note in notes if note in kinds)
    if mask.all():
        findings.append(("mask_full", name))
    return findings
