"""Folders of images: real/ and fake/ (and masks/), Tp/ and Gt/, or no labels at all; subfolders allowed."""

from __future__ import annotations

import os

from ddl_d2.data.datasets.assemble import assemble
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.listing import MASK_FOLDERS, Lister, pair_masks


def load_labeled_folder(folder: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Load real/**, fake/** and masks/** (or mask/) below a folder, the masks under the fakes' names (layout A)."""
    reals = lister.images(os.path.join(folder, "real"))
    fakes = lister.images(os.path.join(folder, "fake"))
    mask_folder, masks = list_masks(folder, lister)
    paired = pair_masks(fakes, masks, lister.report, prefix=f"{mask_folder}/")
    return assemble(
        folder,
        [f"real/{name}" for name in reals] + [f"fake/{name}" for name in fakes],
        [0] * len(reals) + [1] * len(fakes),
        [""] * len(reals) + [mask and f"{mask_folder}/{mask}" for mask in paired],
        fake_without_mask=fake_without_mask,
        report=lister.report,
    )


def load_tampered_folder(folder: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Load Tp/** with masks in Gt/**, and real images in Au/** if there are any, below a folder (IMDL datasets)."""
    fakes, masks = lister.images(os.path.join(folder, "Tp")), lister.images(os.path.join(folder, "Gt"))
    reals = lister.images(os.path.join(folder, "Au"))
    paired = pair_masks(fakes, masks, lister.report, prefix="Gt/")
    return assemble(
        folder,
        [f"Au/{name}" for name in reals] + [f"Tp/{name}" for name in fakes],
        [0] * len(reals) + [1] * len(fakes),
        [""] * len(reals) + [mask and f"Gt/{mask}" for mask in paired],
        fake_without_mask=fake_without_mask,
        report=lister.report,
    )


def load_unlabeled_folder(folder: str, lister: Lister) -> DatasetColumns:
    """Load every image in and below a folder, except masks/, without labels."""
    names = lister.images(folder, skip=lambda name: name in MASK_FOLDERS)
    return assemble(
        folder, names, [-1] * len(names), [""] * len(names), fake_without_mask="score", report=lister.report
    )


def list_masks(folder: str, lister: Lister) -> tuple[str, list[str]]:
    """List the masks of a folder: which of masks/ and mask/ it has (the first if both), and the images in it."""
    for name in MASK_FOLDERS:
        if lister.stamps.is_folder(os.path.join(folder, name)):
            return name, lister.images(os.path.join(folder, name))
    return MASK_FOLDERS[0], []
