"""Reading a split of DDL-I without real/ and fake/: layouts B and C of datasets/README.md."""

from __future__ import annotations

import os

from ddl_d2.data.datasets.assemble import assemble
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.folder import list_masks
from ddl_d2.data.datasets.labels_file import CONFLICT, read_labels
from ddl_d2.data.datasets.listing import MASK_FOLDERS, Lister, pair_masks
from ddl_d2.data.datasets.splits import IMAGE_FOLDERS


def load_labeled_list(folder: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Load layout B: images in imgs/, images/ or `folder` itself, labels.txt, and masks of the fakes in masks/."""
    images, names = _flat_images(folder, lister)
    known = read_labels(folder, images, names, lister)
    labels = [known.get(name, -1) for name in names]
    for name, label in zip(names, labels, strict=True):
        if label == -1:
            lister.report.add("without_label", images + name)
    if CONFLICT in labels:
        names = [name for name, label in zip(names, labels, strict=True) if label != CONFLICT]
        labels = [label for label in labels if label != CONFLICT]
    fakes = [name for name, label in zip(names, labels, strict=True) if label == 1]
    mask_folder, masks = list_masks(folder, lister)
    paired = iter(pair_masks(fakes, masks, lister.report, prefix=f"{mask_folder}/"))
    of_each = [next(paired) if label == 1 else "" for label in labels]
    return assemble(
        folder,
        [images + name for name in names],
        labels,
        [mask and f"{mask_folder}/{mask}" for mask in of_each],
        fake_without_mask=fake_without_mask,
        report=lister.report,
    )


def load_flat(folder: str, lister: Lister) -> DatasetColumns:
    """Load layout C: images in imgs/, images/ or `folder` itself, without labels."""
    images, names = _flat_images(folder, lister)
    return assemble(
        folder,
        [images + name for name in names],
        [-1] * len(names),
        [""] * len(names),
        fake_without_mask="score",
        report=lister.report,
    )


def _flat_images(folder: str, lister: Lister) -> tuple[str, list[str]]:
    """("imgs/", "images/" or "" for the folder itself, the names of the images there)."""
    for name in IMAGE_FOLDERS:
        if lister.stamps.is_folder(os.path.join(folder, name)):
            return f"{name}/", lister.images(os.path.join(folder, name))
    return "", lister.images(folder, skip=lambda name: name in MASK_FOLDERS)
