"""A JSON list of [image, mask] or [image, "Negative"], the exchange format of the IMDL benchmark."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from ddl_d2.data.datasets.assemble import assemble
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.listed_files import ListedFiles
from ddl_d2.data.datasets.listed_names import label_of, unquoted
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.text_files import read_json
from ddl_d2.errors import DatasetError

_COCO = ("images", "annotations", "categories")


def load_json_list(path: str, lister: Lister, *, fake_without_mask: str) -> DatasetColumns:
    """Load a list, whose paths are relative to the lister's root, or absolute inside it.

    Args:
        path: a JSON file: [["a.jpg", "a_mask.png"], ["b.jpg", "Negative"], ...]. A byte order mark is fine. A label in
            the place of a mask (0, "real", "fake", ...) is understood.
        lister: its root is where nothing may lead out of.
        fake_without_mask: see `assemble`; applied where a mask is missing or refused.

    Raises:
        DatasetError: not JSON, not a list, or nothing usable in it.
    """
    lister.stamps.note(path)
    with _no_collection():
        names, labels, masks = _read_entries(path, lister)
    return assemble(lister.root, names, labels, masks, fake_without_mask=fake_without_mask, report=lister.report)


def _read_entries(path: str, lister: Lister) -> tuple[list[str], list[int], list[str]]:
    """Names, labels and masks ("" for none) of what is usable, in the list's order."""
    files = ListedFiles(lister)
    report = lister.report
    labels: dict[str, int] = {}
    masks: dict[str, str] = {}
    conflicting: set[str] = set()
    for number, entry in enumerate(_entries(path), start=1):
        if not _is_pair(entry):
            report.add("bad_line", f"entry {number}: {str(entry)[:60]}")
            continue
        image, mask = unquoted(entry[0]), entry[1]
        name = files.resolve(image)
        if name is None:
            continue
        told = label_of(mask)  # in the place of a mask, which a real image has not, and a fake may lack
        label = 1 if told is None else told
        if name in labels:
            same = labels[name] == label
            report.add("duplicate_entry" if same else "conflicting_label", name)
            if not same:
                conflicting.add(name)
            continue
        labels[name] = label
        masks[name] = (files.resolve(unquoted(mask)) or "") if told is None else ""
        if told == 1:
            report.add("fake_without_mask", name)
    names = [name for name in labels if name not in conflicting]
    return names, [labels[name] for name in names], [masks[name] for name in names]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without looking for garbage cycles: over a million small lists that is a third of the time, for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _entries(path: str) -> list:
    entries = read_json(path)
    check_not_coco(path, entries)
    if not isinstance(entries, list):
        raise DatasetError(
            f'{path}: holds a JSON {type(entries).__name__}; a list of [image, mask | "Negative"] is needed'
        )
    return entries


def check_not_coco(path: str, content: object) -> None:
    """Refuse a COCO file in words that help.

    Raises:
        DatasetError: says what is read instead.
    """
    if isinstance(content, dict) and isinstance(content.get("images"), list) and set(_COCO) & set(content):
        found = ", ".join(key for key in _COCO if key in content)
        raise DatasetError(
            f"{path}: is a COCO file ({found}), which is not read. Save the "
            "annotations of each image as one mask (255 forged, 0 authentic), and write a list of [image, mask | "
            '"Negative"]: see datasets/README.md'
        )


def _is_pair(entry: object) -> bool:
    if type(entry) is not list or len(entry) != 2 or type(entry[0]) is not str or not unquoted(entry[0]):
        return False
    return bool(unquoted(entry[1])) if type(entry[1]) is str else label_of(entry[1]) is not None
