"""DDL-I on disk: where its splits lie, and how a split is read (layouts A, B and C of datasets/README.md)."""

from __future__ import annotations

import os

from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.folder import list_masks
from ddl_d2.data.datasets.listing import MASK_FOLDERS, Lister, is_within, pair_masks
from ddl_d2.data.datasets.rows import assemble
from ddl_d2.errors import DatasetError
from ddl_d2.io.file_names import is_image

SPLITS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
IMAGE_FOLDERS = ("imgs", "images")
LABELS_NAME = "labels.txt"
_CONTENT_FOLDERS = frozenset({"real", "fake", *MASK_FOLDERS, *IMAGE_FOLDERS})
_MAX_WRAPPERS = 6


def split_layout(folder: str) -> str:
    """The layout of a split's folder: "A" (real/, fake/), "B" (labels.txt), "C" (images, no labels), "" (none)."""
    if any(os.path.isdir(os.path.join(folder, name)) for name in ("real", "fake")):
        return "A"
    if not os.path.isdir(folder):
        return ""
    images = any(os.path.isdir(os.path.join(folder, name)) for name in IMAGE_FOLDERS) or _has_image(folder)
    labels = os.path.isfile(os.path.join(folder, LABELS_NAME))
    return ("B" if labels else "C") if images else ""


def find_splits(root: str) -> dict[str, list[str]]:
    """Folders named like a split, in `root` or below wrapper folders: split -> paths, those nearest first.

    Links are followed inside `root` only. Folders that hold images are not searched.
    """
    by_alias = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
    root = os.path.realpath(root)
    found: dict[str, list[str]] = {}
    seen = {root}
    level = [root]
    for depth in range(_MAX_WRAPPERS + 1):
        below: list[str] = []
        for folder in level:
            split = by_alias.get(os.path.basename(folder).lower())
            if split and split_layout(folder):
                found.setdefault(split, []).append(folder)
            elif depth < _MAX_WRAPPERS:
                below.extend(_wrapped(folder, root, seen))
        level = below
    return found


def find_split(root: str, split: str) -> str:
    """The folder of one split.

    Raises:
        DatasetError: no folder of that name below `root` looks like one, or several do.
    """
    found = find_splits(root)
    folders = found.get(split, [])
    if len(folders) == 1:
        return folders[0]
    if folders:
        listed = ", ".join(os.path.relpath(folder, root) for folder in folders)
        raise DatasetError(
            f"{root}: several folders look like the {split} split: {listed}. Give one of them, or a root nearer to it."
        )
    names = " or ".join(f"{alias}/" for alias in SPLITS.get(split, (split,)))
    raise DatasetError(
        f"{root}: no {split} split. Looked for a folder {names} in it and up to {_MAX_WRAPPERS} folders down, with "
        f"real/ and fake/, with {LABELS_NAME}, or with images. Found {_contents(root, found)}."
    )


def load_labeled_list(folder: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Layout B: images in imgs/, images/ or `folder` itself, labels in labels.txt, masks of the fakes in masks/."""
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
    """Layout C: images without labels."""
    images, names = _flat_images(folder, lister)
    return assemble(
        folder,
        [images + name for name in names],
        [-1] * len(names),
        [""] * len(names),
        fake_without_mask="score",
        report=lister.report,
    )


_CONFLICT = -2


def _read_labels(folder: str, names: set[str], lister: Lister) -> dict[str, int]:
    """labels.txt as name -> 0, 1 or `_CONFLICT`; only names that were listed on disk."""
    path = os.path.join(folder, LABELS_NAME)
    report = lister.report
    if not is_within(path, lister.root):
        raise DatasetError(f"{path}: leads out of {lister.root}; it is not read")
    lister.stamps[path] = os.stat(path).st_mtime_ns
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


def read_text(path: str) -> str:
    """A text file, with or without a byte order mark (UTF-8, UTF-16); bytes that are not valid become surrogates."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")


def _flat_images(folder: str, lister: Lister) -> tuple[str, list[str]]:
    """("imgs/", "images/" or "" for the folder itself, the names of the images there)."""
    for name in IMAGE_FOLDERS:
        if os.path.isdir(os.path.join(folder, name)):
            return f"{name}/", lister.images(os.path.join(folder, name))
    return "", lister.images(folder, skip=lambda name: name in MASK_FOLDERS)


def _has_image(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_image(entry.name) and entry.is_file() for entry in entries)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror})") from error


def _wrapped(folder: str, root: str, seen: set[str]) -> list[str]:
    """The folders in `folder` that may hold a split: not seen before, not content, not outside `root`."""
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in _CONTENT_FOLDERS or entry.name.startswith(".") or not entry.is_dir():
                    continue
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in seen and is_within(real, root):
                    seen.add(real)
                    below.append(entry.path)
    except OSError:
        return []
    return sorted(below)


def _contents(root: str, found: dict[str, list[str]]) -> str:
    if found:
        return "the splits " + ", ".join(
            f"{split} ({os.path.relpath(paths[0], root)})" for split, paths in found.items()
        )
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        return f"that it cannot be listed ({error.strerror})"
    shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    return f"{shown}" if names else "an empty folder"
