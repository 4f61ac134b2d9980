"""Reading a split of DDL-I without real/ and fake/: layouts B and C of datasets/README.md."""

from __future__ import annotations

import os

from ddl_d2.data.datasets.assemble import assemble
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.folder import list_masks
from ddl_d2.data.datasets.listing import MASK_FOLDERS, Lister, is_within, pair_masks
from ddl_d2.data.datasets.splits import IMAGE_FOLDERS, LABELS_NAME
from ddl_d2.data.datasets.text_files import read_text
from ddl_d2.errors import DatasetError

_CONFLICT = -2


def load_labeled_list(folder: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Load layout B: images in imgs/, images/ or `folder` itself, labels.txt, and masks of the fakes in masks/."""
    images, names = _flat_images(folder, lister)
    known = _read_labels(folder, set(names), lister)
    labels = [known.get(name, -1) for name in names]
    for name, label in zip(names, labels, strict=True):
        if label == -1:
            lister.report.add("without_label", images + name)
    if _CONFLICT in labels:
        names = [name for name, label in zip(names, labels, strict=True) if label != _CONFLICT]
        labels = [label for label in labels if label != _CONFLICT]
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


def _read_labels(folder: str, names: set[str], lister: Lister) -> dict[str, int]:
    """labels.txt as name -> 0, 1 or `_CONFLICT`; only names that were listed on disk."""
    path = os.path.join(folder, LABELS_NAME)
    report = lister.report
    if not is_within(path, lister.root):
        raise DatasetError(f"{path}: leads out of {lister.root}; it is not read")
    lister.stamps.note(path)
    labels: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        text = line.strip()
        if not text:
            continue
        name, comma, label = text.rpartition(",")
        name, label = name.rstrip(), label.strip()
        if not comma or label not in ("0", "1"):
            if number > 1 or not comma:  # the first line may be a header
                report.add("bad_line", f"{LABELS_NAME} line {number}: {text[:60]}")
        elif name not in names:
            report.add("label_without_image", name[:200])
        elif name not in labels:
            labels[name] = int(label)
        elif labels[name] == int(label):
            report.add("duplicate_entry", name)
        else:
            report.add("conflicting_label", name)
            labels[name] = _CONFLICT
    return labels


def _flat_images(folder: str, lister: Lister) -> tuple[str, list[str]]:
    """("imgs/", "images/" or "" for the folder itself, the names of the images there)."""
    for name in IMAGE_FOLDERS:
        if lister.stamps.is_folder(os.path.join(folder, name)):
            return f"{name}/", lister.images(os.path.join(folder, name))
    return "", lister.images(folder, skip=lambda name: name in MASK_FOLDERS)
