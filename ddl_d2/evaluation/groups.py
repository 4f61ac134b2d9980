"""A file that says which images belong together, such as all of one person or of one video."""

from __future__ import annotations

import csv
import os

from ddl_d2.data.datasets.text_files import read_lines
from ddl_d2.errors import InputError

_COLUMNS = ["image_id", "group"]


def read_groups(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the group of each image from a CSV file whose header is `image_id,group`.

    Args:
        path: of the file.

    Returns:
        The group of each `image_id`, in the order of the file.

    Raises:
        InputError: it is not such a table, leaves a cell empty, or names an image twice with different groups; the
            message names the line.
        OSError: it cannot be read.
    """
    lines = csv.reader(read_lines(os.fspath(path)))
    header = next(lines, [])
    if header != _COLUMNS:
        raise InputError(f"{path}: the first line must be {','.join(_COLUMNS)}, it is {','.join(header)!r}")
    groups: dict[str, str] = {}
    for cells in lines:
        if not cells:
            continue
        where = f"{path}, line {lines.line_num}"
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{where}: expected an image_id and its group, got {cells}")
        image_id, group = cells
        if groups.setdefault(image_id, group) != group:
            raise InputError(f"{where}: {image_id} is in the group {group}, and before in {groups[image_id]}")
    return groups
