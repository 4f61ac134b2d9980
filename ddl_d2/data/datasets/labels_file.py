"""labels.txt of layout B: lines of a file name and a label."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from ddl_d2.data.datasets.listed_names import LABEL_WORDS, label_of, same_text, unquoted, with_slashes
from ddl_d2.data.datasets.listing import Lister, is_within
from ddl_d2.data.datasets.splits import LABELS_NAME, SPLITS
from ddl_d2.data.datasets.text_files import read_lines
from ddl_d2.errors import DatasetError

CONFLICT = -2
"""Of an image that is listed with both labels."""


class _Line(NamedTuple):
    """A line that was understood; `name` is as on disk if `prefix` is taken away, "" if there is no such image."""

    written: str
    label: int
    name: str
    prefix: str


def read_labels(folder: str, images: str, names: Sequence[str], lister: Lister) -> dict[str, int]:
    """Read the labels.txt of a split.

    Names may be written in another form of Unicode, with backslashes, in quotes, or with the path to the images before
    them: that of the folder they lie in, or one for all that no folder of another split is in.

    Args:
        folder: of the split.
        images: the folder of its images, relative to it: "imgs/", or "".
        names: of its images, relative to that.
        lister: receives what is not understood.

    Returns:
        name -> 0, 1 or `CONFLICT`, for the names that are listed and on disk.

    Raises:
        DatasetError: the file leads out of the root.
    """
    path = os.path.join(folder, LABELS_NAME)
    if not is_within(path, lister.root):
        raise DatasetError(f"{path}: leads out of {lister.root}; it is not read")
    lister.stamps.note(path)
    on_disk = {same_text(name): name for name in names}
    lines = list(_understood(read_lines(path), on_disk, lister))
    prefixes = {line.prefix for line in lines if line.name} - {""}
    usable = _usable(prefixes, os.path.join(folder, images).rstrip("/").split("/"))
    labels: dict[str, int] = {}
    for line in lines:
        if not line.name or (line.prefix and line.prefix not in usable):
            lister.report.add("label_without_image", line.written[:200])
        elif line.name not in labels:
            labels[line.name] = line.label
        elif labels[line.name] == line.label:
            lister.report.add("duplicate_entry", line.name)
        else:
            lister.report.add("conflicting_label", line.name)
            labels[line.name] = CONFLICT
    return labels


def _understood(lines: Sequence[str], on_disk: dict[str, str], lister: Lister) -> Iterator[_Line]:
    """The lines that are a name and a label; others are reported, but for a header."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        name, comma, word = text.rpartition(",")
        label = label_of(word)
        if not comma or label is None:
            if number > 1 or not comma or _find(unquoted(name), on_disk)[0]:  # else a header
                lister.report.add("bad_line", f"{LABELS_NAME} line {number}: {text[:60]} (labels are {LABEL_WORDS})")
            continue
        written = name if name in on_disk else unquoted(name)
        yield _Line(written, label, *_find(written, on_disk))


def _find(written: str, on_disk: dict[str, str]) -> tuple[str, str]:
    """(name on disk or "", what stands before it)."""
    found = on_disk.get(written) or on_disk.get(same_text(written), "")
    if found:
        return found, ""
    parts = same_text(with_slashes(written)).split("/")
    if ".." in parts:
        return "", ""
    for start in range(len(parts)):
        found = on_disk.get("/".join(parts[start:]), "")
        if found:
            return found, "/".join(part for part in parts[:start] if part != ".")
    return "", ""


def _usable(prefixes: Set[str], here: Sequence[str]) -> set[str]:
    """What may stand before the names: the end of the images' own path, or one path for all, if of no other split."""
    others = {alias for aliases in SPLITS.values() for alias in aliases} - {part.lower() for part in here}
    parts = {prefix: prefix.strip("/").split("/") for prefix in prefixes}
    allowed = {prefix for prefix in prefixes if others.isdisjoint(part.lower() for part in parts[prefix])}
    return allowed if len(allowed) == 1 else {p for p in allowed if parts[p] == list(here[-len(parts[p]) :])}
