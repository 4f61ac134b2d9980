"""The answers of the DDL-X challenge (IJCAI 2026): one JSON file per image, with boxes, a text and a class.

    {"Bounding boxes": [[x1, y1, x2, y2], ...], "Visible forgery traces": "...", "Classification result": "fake"}

The file has the image's name but .json. Corners are whole numbers on a scale of 0 to 1000 over the image's width and
height and belong to the box. A real image has no boxes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddl_d2.errors import SubmissionError
from ddl_d2.io.atomic import write_json

Box = tuple[int, int, int, int]

BOXES, TRACES, CLASS = "Bounding boxes", "Visible forgery traces", "Classification result"
SCALE = 1000
_FAKE, _REAL = "fake", "real"
_SHORTEST_TEXT = 20


@dataclass(frozen=True)
class DdlXAnswer:
    """What is said of one image.

    Attributes:
        is_fake: the class.
        boxes: (x1, y1, x2, y2), 0..1000, both corners inside.
        traces: what is to be seen, in words.
    """

    is_fake: bool
    boxes: tuple[Box, ...]
    traces: str

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {BOXES: [list(box) for box in self.boxes], TRACES: self.traces, CLASS: _FAKE if self.is_fake else _REAL}

    def faults(self) -> list[str]:
        """What a machine can tell is wrong with the answer, in words; empty if nothing is."""
        found = []
        if self.is_fake and not self.boxes:
            found.append("fake, but without a box")
        if not self.is_fake and self.boxes:
            found.append("real, but with boxes")
        if len(self.traces.strip()) < _SHORTEST_TEXT:
            found.append(f"a text of fewer than {_SHORTEST_TEXT} characters")
        return found


def make_answer(is_fake: bool, boxes: Iterable[Sequence[int]], *, height: int, width: int, traces: str) -> DdlXAnswer:
    """Make the answer for an image.

    Args:
        is_fake: its class; boxes of a real image are left out.
        boxes: (x0, y0, x1, y1) in pixels, x1 and y1 just outside, as `ForgedRegion.box`.
        height: of the image, pixels.
        width: likewise.
        traces: what is to be seen.
    """
    scaled = (
        (_scaled(x0, width), _scaled(y0, height), _scaled(x1 - 1, width), _scaled(y1 - 1, height))
        for x0, y0, x1, y1 in boxes
    )
    return DdlXAnswer(is_fake, tuple(scaled) if is_fake else (), traces)


def write_answer(folder: str | os.PathLike[str], image_name: str, answer: DdlXAnswer) -> Path:
    """Write an answer as `<stem of the image>.json` into a folder; returns the file. Raises OSError."""
    path = Path(folder) / f"{Path(image_name).stem}.json"
    write_json(path, answer.to_json())
    return path


def check_stems(images: Iterable[Path]) -> None:
    """Raise SubmissionError if two images would share an answer's name."""
    seen: dict[str, Path] = {}
    for image in images:
        if seen.setdefault(image.stem, image) != image:
            raise SubmissionError(f"{seen[image.stem]} and {image} would share the answer {image.stem}.json")


def read_answer(path: str | os.PathLike[str]) -> DdlXAnswer:
    """Read an answer.

    Raises:
        SubmissionError: the file cannot be read or breaks the format; the message says how.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SubmissionError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or set(content) != {BOXES, TRACES, CLASS}:
        raise SubmissionError(f"{path}: must have the keys {BOXES!r}, {TRACES!r} and {CLASS!r}, and no others")
    if content[CLASS] not in (_FAKE, _REAL):
        raise SubmissionError(f"{path}: {CLASS!r} is {content[CLASS]!r}, not 'real' or 'fake'")
    if not isinstance(content[TRACES], str):
        raise SubmissionError(f"{path}: {TRACES!r} is no text")
    if not isinstance(content[BOXES], list):
        raise SubmissionError(f"{path}: {BOXES!r} is no list")
    return DdlXAnswer(content[CLASS] == _FAKE, tuple(_checked(box, path) for box in content[BOXES]), content[TRACES])


def _checked(box: Any, path: str | os.PathLike[str]) -> Box:
    whole = isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box)
    if not whole or not (0 <= box[0] <= box[2] <= SCALE and 0 <= box[1] <= box[3] <= SCALE):
        raise SubmissionError(
            f"{path}: {box} is no box: four whole numbers of 0 to {SCALE}, [x1, y1, x2, y2], with x1 <= x2 and y1 <= y2"
        )
    return box[0], box[1], box[2], box[3]


def _scaled(pixel: int, side: int) -> int:
    return round(pixel / side * SCALE)
