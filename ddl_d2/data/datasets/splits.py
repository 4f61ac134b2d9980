"""Where the splits of a dataset in DDL-I's layout lie below its root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from ddl_d2.data.datasets.listing import MASK_FOLDERS, is_within
from ddl_d2.errors import DatasetError
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.file_names import is_image, says_nothing

SPLITS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
"""Split -> the names that its folder may have."""
IMAGE_FOLDERS = ("imgs", "images")
LABELS_NAME = "labels.txt"
_CONTENT_FOLDERS = frozenset({"real", "fake", *MASK_FOLDERS, *IMAGE_FOLDERS})
_MAX_WRAPPERS = 6


def split_layout(folder: str) -> str:
    """Tell the layout of a split's folder: "A" (real/, fake/), "B" (labels.txt), "C" (images, no labels), "" (none).

    Raises:
        DatasetError: real/, fake/ or the masks' folder is there with capitals only, and would be passed over.
    """
    _refuse_capitals(folder)
    if any(os.path.isdir(os.path.join(folder, name)) for name in ("real", "fake")):
        return "A"
    if not os.path.isdir(folder):
        return ""
    images = any(os.path.isdir(os.path.join(folder, name)) for name in IMAGE_FOLDERS) or _has_image(folder)
    labels = os.path.isfile(os.path.join(folder, LABELS_NAME))
    return ("B" if labels else "C") if images else ""


def _refuse_capitals(folder: str) -> None:
    """Raise DatasetError for Real/ or FAKE/, and for Masks/ beside such a folder or one of the right name."""
    labeled = [name for name in ("real", "fake") if os.path.isdir(os.path.join(folder, name))]
    wrong = _with_capitals(folder, ("real", "fake"))
    if labeled or wrong:
        wrong |= _with_capitals(folder, MASK_FOLDERS)
    if wrong:
        listed = ", ".join(f"{name}/ to {right}/" for name, right in wrong.items())
        raise DatasetError(f"{folder}: the names of its folders must be in small letters; rename {listed}")


def _with_capitals(folder: str, names: Iterable[str]) -> dict[str, str]:
    """The folders that are there as Name or NAME, but not as name: their name -> the right one."""
    return {
        spelled: name
        for name in names
        if not os.path.isdir(os.path.join(folder, name))
        for spelled in (name.capitalize(), name.upper())
        if os.path.isdir(os.path.join(folder, spelled))
    }


def find_splits(root: str) -> dict[str, list[str]]:
    """Find folders that are named like a split, in `root` or below wrapper folders.

    Links are followed inside `root` only. Folders that hold images are not searched.

    Returns:
        split -> paths, those nearest first.
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
    """Find the folder of one split.

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


def holds_image(folder: str) -> bool:
    """Tell whether there is an image in a folder or below it."""
    pending = [folder]
    while pending:
        current = pending.pop()
        if _has_image(current):
            return True
        with os.scandir(current) as entries:
            pending += [e.path for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    return False


def _has_image(folder: str) -> bool:
    # First by their names: the folder may hold a million files, of which none has to be opened.
    return any(_files(folder, lambda file: is_image(file.name))) or any(
        _files(folder, lambda file: says_nothing(file.name) and file_kind(file.path) == "image")
    )


def _files(folder: str, wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[str]:
    """The names of the files in a folder that are `wanted`, as far as they are asked for."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_file() and wanted(entry))
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
