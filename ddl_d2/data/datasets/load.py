"""One way into every layout: a path -> rows and a report."""

from __future__ import annotations

import os
from collections.abc import Callable

from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.ddl_i import find_split, find_splits, load_flat, load_labelled_list, split_layout
from ddl_d2.data.datasets.errors import DatasetError, DatasetReport
from ddl_d2.data.datasets.folder import load_labelled_folder, load_tampered_folder, load_unlabelled_folder
from ddl_d2.data.datasets.index_cache import Built, cached
from ddl_d2.data.datasets.json_list import load_json_list
from ddl_d2.data.datasets.listing import Lister


def load_dataset(
    root: str | os.PathLike[str], split: str | None = None, *, fake_without_mask: str = "skip"
) -> tuple[DatasetColumns, DatasetReport]:
    """Load whatever dataset lies at `root`.

    Args:
        root: a folder in any layout of datasets/README.md, one that holds such folders under split names (also inside
            wrapper folders), or a JSON list.
        split: "train", "valid" or "test"; None if `root` is, or holds, just one.
        fake_without_mask: "skip", "full", "score" or "error" (see `assemble`).

    Returns:
        rows (their `root` is the split's folder or the list's; `image_id` is relative to it) and the report.

    Raises:
        DatasetError: nothing usable there, or more than one possibility; the message says what was looked for.
    """
    given = os.path.expanduser(os.fspath(root))
    if not os.path.exists(given):
        raise DatasetError(f"{given}: no such file or folder")
    real = os.path.realpath(given)
    if os.path.isfile(real):
        return _load_list(real, split, fake_without_mask)
    if not os.path.isdir(real):
        raise DatasetError(f"{given}: is neither a folder nor a JSON list")
    folder = find_split(real, split) if split else _only_split(real)
    return load_folder(folder, within=real, fake_without_mask=fake_without_mask)


def load_folder(
    folder: str, *, within: str | None = None, fake_without_mask: str = "skip"
) -> tuple[DatasetColumns, DatasetReport]:
    """Load one folder, whose layout is told by what is in it; links may lead anywhere inside `within` (default: it)."""
    folder = os.path.realpath(folder)
    root = os.path.realpath(within or folder)
    layout = _layout(folder)
    loaders: dict[str, Callable[[Lister], DatasetColumns]] = {
        "A": lambda lister: load_labelled_folder(folder, lister, fake_without_mask=fake_without_mask),
        "B": lambda lister: load_labelled_list(folder, lister, fake_without_mask=fake_without_mask),
        "C": lambda lister: load_flat(folder, lister),
        "Tp": lambda lister: load_tampered_folder(folder, lister, fake_without_mask=fake_without_mask),
        "": lambda lister: load_unlabelled_folder(folder, lister),
    }
    key = {"folder": folder, "root": root, "layout": layout, "fake_without_mask": fake_without_mask}
    return cached(key, lambda: _build(root, loaders[layout]))


def _load_list(path: str, split: str | None, fake_without_mask: str) -> tuple[DatasetColumns, DatasetReport]:
    if split:
        raise DatasetError(f"{path}: a JSON list has no splits; leave out {split!r}")
    if not path.lower().endswith(".json"):
        raise DatasetError(f"{path}: is a file, but not a .json list of pictures; give the folder or the list")
    root = os.path.dirname(path)
    key = {"list": path, "root": root, "fake_without_mask": fake_without_mask}
    return cached(
        key, lambda: _build(root, lambda lister: load_json_list(path, lister, fake_without_mask=fake_without_mask))
    )


def _build(root: str, load: Callable[[Lister], DatasetColumns]) -> Built:
    lister = Lister(root, DatasetReport())
    try:
        rows = load(lister)
    except OSError as error:
        raise DatasetError(f"{error.filename or root}: cannot be listed ({error.strerror})") from error
    return rows, lister.report, lister.stamps


def _layout(folder: str) -> str:
    if all(os.path.isdir(os.path.join(folder, name)) for name in ("Tp", "Gt")):
        return "Tp"
    return split_layout(folder)


def _only_split(root: str) -> str:
    """`root` if it is a dataset of its own, or the single split below it."""
    if _layout(root) in ("A", "B", "Tp"):
        return root
    found = {split: paths for split, paths in find_splits(root).items() if paths != [root]}
    folders = [path for paths in found.values() for path in paths]
    if len(folders) == 1:
        return folders[0]
    if folders:
        listed = ", ".join(f"{split} ({os.path.relpath(p, root)})" for split, paths in found.items() for p in paths)
        raise DatasetError(f"{root}: holds several splits: {listed}. Say which (--split), or give the folder itself.")
    return root
