"""What is known of images besides their labels, and how it sorts them: by forgery type, source, size and the like.

Legend: N images.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.data.datasets.text_files import read_lines
from ddl_d2.errors import InputError
from ddl_d2.evaluation.results import ImageResult

Facts = Mapping[str, Mapping[str, str]]
"""Of each column of a facts file, the value of each image; an image without one is missing."""

FACES, TYPE = "faces", "forgery_type"
"""Columns of a facts file that are read as a number of faces, and instead of the dataset's forgery types."""

_AREAS = ((0.01, "under 1 %"), (0.05, "1 to 5 %"), (0.1, "5 to 10 %"), (0.25, "10 to 25 %"), (0.5, "25 to 50 %"))
_SIDES = ((256, "up to 256"), (512, "257 to 512"), (1024, "513 to 1024"), (2048, "1025 to 2048"))
_COUNTS = ((0, "none"), (1, "1"), (2, "2"), (5, "3 to 5"))


class Sorting(NamedTuple):
    """Images sorted by one thing that is known of them.

    Attributes:
        name: such as "forged area".
        groups: of each value, in their order, which of the N images have it (indices, sorted).
        of_reals: whether real images are sorted, too; else only fakes are, and each group's go against all real ones.
    """

    name: str
    groups: dict[str, NDArray[np.int64]]
    of_reals: bool


def read_facts(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Read a CSV file whose header is `image_id` and names of the user's, such as `image_id,source,faces`.

    Args:
        path: of the file.

    Returns:
        Of each column, the value of each image; empty cells are left out.

    Raises:
        InputError: it is not such a table, or names an image twice; the message names the line.
        OSError: it cannot be read.
    """
    lines = csv.reader(read_lines(os.fspath(path)))
    header = next(lines, [])
    if header[:1] != ["image_id"] or len(set(header)) != len(header) or len(header) < 2 or not all(header):
        raise InputError(
            f"{path}: the first line must be image_id and names of columns, such as image_id,source,faces; it is "
            f"{','.join(header)!r}"
        )
    facts: dict[str, dict[str, str]] = {name: {} for name in header[1:]}
    seen: set[str] = set()
    for cells in lines:
        if not cells:
            continue
        where = f"{path}, line {lines.line_num}"
        if len(cells) != len(header) or not cells[0]:
            raise InputError(f"{where}: expected {len(header)} cells, an image_id first, got {cells}")
        if cells[0] in seen:
            raise InputError(f"{where}: {cells[0]} is there twice")
        seen.add(cells[0])
        for name, value in zip(header[1:], cells[1:], strict=True):
            if value:
                facts[name][cells[0]] = value
    for image_id, value in facts.get(FACES, {}).items():
        if not value.isdecimal():
            raise InputError(f"{path}: {image_id} has {value!r} faces: a whole number is needed")
    return facts


def sortings_of(rows: Sequence[ImageResult], facts: Facts | None = None) -> list[Sorting]:
    """Sort images by forgery type, by forged area, by the columns of a facts file, and by size.

    Args:
        rows: the images.
        facts: of `read_facts`.

    Returns:
        Only sortings that tell images apart: with two groups or more.
    """
    facts = facts or {}
    found = [
        _sorted("forgery type", rows, partial(_type, facts.get(TYPE, {}))),
        _sorted("forged area", rows, _area, order=[label for _, label in _AREAS]),
    ]
    for name, values in facts.items():
        if name == FACES:
            counts = [label for _, label in _COUNTS]
            found.append(_sorted("faces", rows, partial(_faces, values), order=counts))
        elif name != TYPE:
            found.append(_sorted(name, rows, partial(_value, values)))
    found.append(_sorted("longest side", rows, _side, order=[label for _, label in _SIDES]))
    return [one for one in found if len(one.groups) > 1]


def _sorted(
    name: str, rows: Sequence[ImageResult], value_of: Callable[[ImageResult], str | None], order: Sequence[str] = ()
) -> Sorting:
    """Sort by a value; images without one are in no group. Values of `order` come first, the others by name."""
    members: dict[str, list[int]] = {}
    of_reals = False
    for index, row in enumerate(rows):
        value = value_of(row)
        if value:
            members.setdefault(value, []).append(index)
            of_reals = of_reals or not row.is_fake
    rank = {label: number for number, label in enumerate(order)}
    names = sorted(members, key=lambda value: (rank.get(value, len(rank)), value))
    return Sorting(name, {value: np.array(members[value], dtype=np.int64) for value in names}, of_reals)


def _area(row: ImageResult) -> str | None:
    """The bin of a fake's share of forged pixels, which its counts tell; None without a mask or with an empty one."""
    if not row.is_fake or row.counts is None:
        return None
    forged = (row.counts[0] + row.counts[2]) / sum(row.counts)
    return next((label for end, label in _AREAS if forged < end), "50 % and more") if forged else None


def _side(row: ImageResult) -> str:
    longest = max(row.height, row.width)
    return next((label for end, label in _SIDES if longest <= end), "2049 and more")


def _faces(counts: Mapping[str, str], row: ImageResult) -> str | None:
    count = counts.get(row.image_id)
    return None if count is None else next((label for end, label in _COUNTS if int(count) <= end), "6 and more")


def _type(types: Mapping[str, str], row: ImageResult) -> str | None:
    return (types.get(row.image_id) or row.forgery_type) if row.is_fake else None


def _value(values: Mapping[str, str], row: ImageResult) -> str | None:
    return values.get(row.image_id)
