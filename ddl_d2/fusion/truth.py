"""Predictions beside the ground truth of a dataset, and the check that two datasets share no image."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import FusionError
from ddl_d2.evaluation.errors import listed
from ddl_d2.fusion.stores import AlignedStores

Row = Mapping[str, Any]
"""A dataset dict."""


@dataclass(frozen=True)
class LabeledPredictions:
    """Predictions of N images and what is true of them.

    Attributes:
        systems: the S stores, possibly with more images.
        scores: (S, N) in [0, 1], P(fake).
        labels: (N,) 0 real, 1 fake.
        rows: the dataset, possibly with more images.
        order: (N,) where in `rows` each image is.
    """

    systems: AlignedStores
    scores: NDArray[np.float64]
    labels: NDArray[np.int8]
    rows: Sequence[Row]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Row]:
        """Yield the dataset dicts, sorted by `image_id`."""
        return (self.rows[int(index)] for index in self.order)

    def fakes(self) -> Iterator[Row]:
        """Yield the dataset dicts of fakes, likewise."""
        return (self.rows[int(index)] for index in self.order[self.labels == 1])


def label_predictions(systems: AlignedStores, rows: Sequence[Row], *, intersection: bool = False) -> LabeledPredictions:
    """Join predictions with a dataset.

    Args:
        systems: the predictions.
        rows: dataset dicts; all that are used need `is_fake`.
        intersection: use the images both sides have, instead of refusing when they differ.

    Raises:
        FusionError: images are missing on either side, have no label or another label than the stores know, or only
            one class is left: nothing can be ranked then.
    """
    found = {row["image_id"]: index for index, row in enumerate(rows)}
    known = set(systems.ids)
    if not intersection:
        for missing, problem in (
            (found.keys() - known, "images of the dataset have no prediction"),
            (known - found.keys(), "predicted images are not in the dataset"),
        ):
            if missing:
                raise FusionError(f"{len(missing)} {problem}: {listed(sorted(missing))}")
    columns = [column for column, image_id in enumerate(systems.ids) if image_id in found]
    order = np.array([found[systems.ids[column]] for column in columns], np.int64)
    labels = np.array([rows[int(index)].get("is_fake", -1) for index in order], np.int8)
    _check_labels(systems, columns, labels)
    return LabeledPredictions(systems, systems.scores[:, columns], labels, rows, order)


def check_disjoint(tuned: LabeledPredictions, reported: LabeledPredictions) -> None:
    """Raise FusionError if an image that weights were chosen on is among those they are to be reported on.

    Ids are relative to a dataset's folder, so `real/1.png` may be two images. Two rows are the same image if they are
    the same file (by its number on the disk, so links do not hide it; any two frames of one video are the same file),
    or files of one id and equal content.

    Raises:
        FusionError: the sets share an image.
        OSError: a file cannot be read.
    """
    files: dict[tuple[int, int], str] = {}
    paths: dict[str, str] = {}
    for row in tuned:
        files[_file_number(row["file_name"])] = paths[row["image_id"]] = row["file_name"]
    shared = [
        row["image_id"]
        for row in reported
        if _file_number(row["file_name"]) in files or _is_copy(row["file_name"], paths.get(row["image_id"]))
    ]
    if shared:
        raise FusionError(
            f"{len(shared)} of the {len(reported)} images to report on are among those the weights are searched on "
            f"({listed(shared)}): the figures would be too good. Report on another set"
        )


def _check_labels(systems: AlignedStores, columns: list[int], labels: NDArray[np.int8]) -> None:
    ids = [systems.ids[column] for column in columns]
    stored = systems.labels[columns]
    if (unlabeled := np.flatnonzero(labels < 0)).size:
        names = [ids[index] for index in unlabeled[:6]]
        raise FusionError(f"{unlabeled.size} images have no label, so nothing can be measured: {listed(names)}")
    if (unlike := np.flatnonzero((stored >= 0) & (stored != labels))).size:
        index = int(unlike[0])
        raise FusionError(
            f"{ids[index]}: the dataset's label is {labels[index]}, the prediction stores' {stored[index]}"
        )
    if len(np.unique(labels)) < 2:
        raise FusionError(f"both real and fake images are needed; of {len(ids)}, {int(labels.sum())} are fake")


def _file_number(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_copy(path: str, other: str | None) -> bool:
    return other is not None and filecmp.cmp(path, other, shallow=False)
