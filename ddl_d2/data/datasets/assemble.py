"""Rows from lists of names, labels and masks, under one rule for fakes without a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.errors import DatasetError

POLICIES = ("skip", "full", "score", "error")


def assemble(
    root: str,
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    masks: Sequence[str],
    *,
    fake_without_mask: str,
    report: DatasetReport,
) -> DatasetColumns:
    """Assemble the rows of one dataset.

    Args:
        root: the folder that names and masks are relative to.
        names: of the images.
        labels: one per image; -1 is unknown.
        masks: one per image; "" is none.
        fake_without_mask: "skip" leaves such an image out, "full" takes it as wholly forged, "score" keeps it for
            detection alone, "error" refuses the dataset.
        report: said in the message when nothing is left.

    Raises:
        DatasetError: an unknown policy, "error" with such an image, or no rows.
    """
    if fake_without_mask not in POLICIES:
        raise DatasetError(f"FAKE_WITHOUT_MASK {fake_without_mask!r} is not one of {', '.join(POLICIES)}")
    labels = np.asarray(labels, dtype=np.int8)
    bare = (labels == 1) & np.fromiter((not mask for mask in masks), dtype=bool, count=len(masks))
    if fake_without_mask == "error" and bare.any():
        first = names[int(np.argmax(bare))]
        raise DatasetError(
            f"{root}: {int(bare.sum())} fake images have no mask (the first: {first}). "
            'Add the masks, or set DATASETS.FAKE_WITHOUT_MASK to "skip", "full" or "score".'
        )
    rows = DatasetColumns.from_lists(
        root, names, labels, masks, fully_forged=bare if fake_without_mask == "full" else None
    )
    if fake_without_mask == "skip" and bare.any():
        rows = rows.select(np.flatnonzero(~bare))
    if not len(rows):
        found = " ".join(report.lines()) or "There is no image in it."
        raise DatasetError(f"{root}: nothing usable in this dataset. {found}")
    return rows
