"""A folder of results that a second call goes on with: `results.jsonl`, and an overlay for each image.

The file's first line says which model made the results, every other line is one image's: what `Prediction.to_dict`
gives, the size and the time of change of the image's file, and the overlay's name. A line is written when its image is
done, so an interruption costs no more than the image under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ddl_d2.errors import InputError
from ddl_d2.inference.images import RESULTS_NAME
from ddl_d2.io.atomic import write_whole
from ddl_d2.utils.text import printable

_GONE = [0, 0]


class ResultsFile:
    """The results in a folder; a context manager that keeps the file open for appending.

    Attributes:
        done: what is known already, by file name as it was given.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Read what is there.

        Args:
            folder: made if it is missing.
            model: what makes the results, as JSON values (`Model.describe`, and how videos are looked at).
            overwrite: forget results that another model made, instead of refusing.

        Raises:
            InputError: the folder holds results of another model or config, or a results file that is none.
        """
        self.path, self.model = folder / RESULTS_NAME, dict(model)
        self.done: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = list(whole_lines(self.path)) if self.path.exists() else []
        if lines and lines[0].get("model") != self.model:
            if not overwrite:
                raise InputError(
                    f"{self.path}: these results are of another model, config or threshold; choose another folder, or "
                    "replace them with --overwrite"
                )
            lines = []
        self.done = {row["file"]: row for row in lines[1:] if "error" not in row}
        self._stamps: dict[Path, list[int]] = {}

    def __enter__(self) -> ResultsFile:
        """Write anew what is known, without a line that was cut off or a file that has changed; keep the file open."""
        self.done = {name: row for name, row in self.done.items() if _stamp(Path(name)) in (row["stamp"], _GONE)}
        rows = ({"model": self.model}, *self.done.values())
        write_whole(self.path, "".join(_line(row) for row in rows))
        self._file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def known(self, path: Path) -> dict[str, Any] | None:
        """The result of a file that has not changed since; None if it has to be predicted, and is read after this."""
        row = self.done.get(printable(path))
        self._stamps[path] = _stamp(path)
        return row if row is not None and row["stamp"] == self._stamps[path] else None

    def add(self, path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
        """Append an image's result; returns it as it is written."""
        # As it was before it was read: if it has changed meanwhile, the next call sees that.
        row = {**result, "file": printable(path), "stamp": self._stamps.get(path) or _stamp(path)}
        self._file.write(_line(row))
        self._file.flush()
        return row


def _stamp(path: Path) -> list[int]:
    """[bytes, time of change in nanoseconds]; zeros for what cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return _GONE
    return [status.st_size, status.st_mtime_ns]


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a results file but for a last line that was cut off."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not a line of results ({error.msg})") from error
            if not isinstance(row, dict) or not ("model" in row or "file" in row):
                raise InputError(f"{path}, line {number}: not a line of results")
            yield row


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
