"""What a dataset was listed from, so that it is noticed when any of it changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

import numpy as np

from ddl_d2.data.datasets.columns import pack, unpack

_ABSENT = (-1, -1)
# A change within the clock's coarseness of the reading would leave no trace.
_SETTLED_NS = 2_000_000_000

Arrays = Mapping[str, np.ndarray]


class Stamps:
    """The folders, lists and files that were looked at, as they were just before.

    A folder is told by its time of modification, which changes when a file is added, removed or renamed; a file that
    was opened by its time and size; and what was looked for in vain by its absence.

    Attributes:
        complete: False once something could not be read: that may be mended without leaving a trace.
    """

    def __init__(self) -> None:
        self.complete = True
        self._seen: dict[str, tuple[int, int]] = {}

    def note(self, path: str) -> None:
        """Remember a folder or file that is about to be read, or is not there; the first time counts."""
        if path not in self._seen:
            self._seen[path] = _stamp(path)

    def is_folder(self, path: str) -> bool:
        """Tell whether there is a folder, and remember if there is none."""
        if os.path.isdir(path):
            return True
        self.note(path)
        return False

    def is_file(self, path: str) -> bool:
        """Tell whether there is a file, and remember if there is none."""
        if os.path.isfile(path):
            return True
        self.note(path)
        return False

    def settled(self, now: int) -> bool:
        """Tell whether a change after `now` (ns) would be seen."""
        return all(now - time > _SETTLED_NS for time, _ in self._seen.values())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Give all stamps, for storing."""
        names, ends = pack(list(self._seen))
        values = np.array(list(self._seen.values()), dtype=np.int64).reshape(-1, 2)
        return {"stamp_names": names, "stamp_ends": ends, "stamps": values}


def unchanged(arrays: Arrays) -> bool:
    """Tell whether everything is as it was when the `Stamps` that gave these arrays were made."""
    names, ends = arrays["stamp_names"], arrays["stamp_ends"]
    return all(
        _stamp(unpack(names, ends, index)) == (time, size)
        for index, (time, size) in enumerate(arrays["stamps"].tolist())
    )


def _stamp(path: str) -> tuple[int, int]:
    """(time of modification in ns, bytes; 0 for a folder)."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no system takes
        return _ABSENT
    return status.st_mtime_ns, 0 if stat.S_ISDIR(status.st_mode) else status.st_size
