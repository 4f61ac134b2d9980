"""Comparing this project's mapper with the usual one, before either is timed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
from _usual_mapper import Row, draw_plan, forgery_mask, stage_of, usual_mapper
from detectron2.data import transforms as T

from ddl_d2.data.loader import seeded
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.io.image import read_image

ROUNDING = 2
"""Gray levels by which images may differ before the colors: PyTorch and Pillow round once for each axis."""


def seed_of(number: int, index: int) -> int:
    """Return the seed of image `index` in round `number`."""
    return 1000 * number + index


def compare(mapper: ForgeryDatasetMapper, row: Row, seed: int) -> dict[str, float]:
    """How far the two mappers lie apart on one image."""
    plan = draw_plan(mapper, row, seed)
    with seeded(0, seed):
        mine = mapper(row)
    theirs = usual_mapper(row, plan.usual, mapper.is_train, lambda _: mock.MagicMock())
    found = {"shapes_differ": float(mine["image"].shape != theirs["image"].shape)}
    if found["shapes_differ"]:
        return found
    plain = [_without_color(row, transforms) for transforms in plan]
    found["max_before_color"], found["mean_before_color"] = _difference(*plain)
    found["max_after_color"], found["mean_after_color"] = _difference(mine["image"].numpy(), theirs["image"].numpy())
    if mapper.is_train:
        by_area = _mask_by_area(row, plan.usual)
        found["mask_pixels_differ"] = float((mine["forgery_mask"].numpy() != by_area).mean())
        found["mask_pixels_differ_from_nearest"] = float(
            (mine["forgery_mask"] != theirs["forgery_mask"]).float().mean()
        )
    return found


def _without_color(row: Row, transforms: Sequence[T.Transform]) -> np.ndarray:
    image = read_image(row["file_name"])
    for transform in transforms:
        if stage_of(transform) in ("resize", "crop, flip"):
            image = transform.apply_image(image)
    return image


def _mask_by_area(row: Row, transforms: Sequence[T.Transform]) -> np.ndarray:
    """The mask by Detectron2's transforms, but resized as an image of 0 and 255 and cut at one half."""
    mask = forgery_mask(row, read_image(row["file_name"])).astype(np.uint8)
    for transform in transforms:
        if isinstance(transform, T.ResizeTransform):
            mask = (transform.apply_image(mask * np.uint8(255)) >= 128).astype(np.uint8)
        else:
            mask = transform.apply_segmentation(mask)
    return mask == 1


def _difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    distance = np.abs(first.astype(np.int16) - second)
    return float(distance.max()), float(distance.mean())


def compare_all(mappers: Mapping[str, ForgeryDatasetMapper], rows: Mapping[str, list[Row]], rounds: int) -> dict:
    """The largest of each figure of `compare` (of a mean, the mean) over all tasks, and the verdict."""
    found: dict[str, list[float]] = defaultdict(list)
    for task, mapper in mappers.items():
        for number in range(min(rounds, 3)):
            for index, row in enumerate(rows[task]):
                for name, value in compare(mapper, row, seed_of(number, index)).items():
                    found[name].append(value)
    checks: dict[str, Any] = {
        name: statistics.fmean(values) if name.startswith("mean") or "nearest" in name else max(values)
        for name, values in found.items()
    }
    checks["compared"] = len(found["shapes_differ"])
    checks["shapes_equal"] = not checks.pop("shapes_differ")
    checks["images_equal"] = checks["shapes_equal"] and checks["max_before_color"] <= ROUNDING
    checks["masks_equal"] = checks["shapes_equal"] and checks["mask_pixels_differ"] == 0
    return checks
