"""Faces that another program has found, from a JSON list.

One object, in one of two forms:

    {"fake/a.png": [{"box": [x0, y0, x1, y1], "landmarks": [[x, y], ...], "score": 0.9}, ...], ...}
    {"crops/fake/a_000.png": [top, bottom, left, right], ...}

The first names images; `landmarks` (five or 68) and `score` may be left out. The second, that of LFDL's released code
(`face_locations.json`), names crops: an image's name, "_" and a number. Numbers are pixels of the image. An image is
meant by the name that is, or ends in, its path in the dataset; of several the one that has most in common with the end
of its file's path. Suffixes such as ".png" do not count.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ddl_d2.errors import InputError
from ddl_d2.faces.face import NUM_LANDMARKS, Face

_NO_LANDMARKS = np.zeros((0, 2))


class FaceList:
    """The faces of a list, by image.

    Args:
        path: of the JSON file.

    Raises:
        InputError: it cannot be read, or is not in one of the two forms.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._by_image: dict[str, list[Face]] = {}
        self._by_depth: dict[int, dict[tuple[str, ...], list[str]]] = {}
        for image, face in self._entries():
            self._by_image.setdefault(image, []).append(face)

    def has_landmarks(self) -> bool:
        """Say whether every face has landmarks."""
        return all(len(face.landmarks) for faces in self._by_image.values() for face in faces)

    def faces(self, image_id: str, file_name: str) -> list[Face]:
        """Return the faces of an image, from left to right; none where the list does not name it.

        Args:
            image_id: its path in the dataset, with "/".
            file_name: of its file.

        Raises:
            InputError: several names of the list fit equally well.
        """
        own = _parts(image_id)
        if len(own) not in self._by_depth:
            self._by_depth[len(own)] = self._names_by_ending(len(own))
        names = self._by_depth[len(own)].get(own, [])
        if len(names) > 1:
            path = _parts(file_name)
            common = [_common_ending(_parts(name), path) for name in names]
            names = [name for name, length in zip(names, common, strict=True) if length == max(common)]
        if len(names) > 1:
            raise InputError(f"{self.path}: names two images that may be {image_id}: {names[0]} and {names[1]}")
        return sorted(self._by_image[names[0]], key=lambda face: face.box) if names else []

    def _names_by_ending(self, depth: int) -> dict[tuple[str, ...], list[str]]:
        """The images' names by their last `depth` parts."""
        found: dict[tuple[str, ...], list[str]] = {}
        for name in self._by_image:
            parts = PurePosixPath(name).parts
            if len(parts) >= depth:
                found.setdefault(parts[-depth:], []).append(name)
        return found

    def _entries(self) -> Iterator[tuple[str, Face]]:
        """Every face, with its image's name without the suffix."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be read as JSON ({error})") from error
        if not isinstance(content, dict):
            raise InputError(f"{self.path}: holds a {type(content).__name__}, not an object of names and faces")
        for key, value in content.items():
            name = str(PurePosixPath(key).with_suffix(""))
            try:
                if value and all(isinstance(number, (int, float)) for number in value):
                    top, bottom, left, right = value
                    yield re.sub(r"_\d+$", "", name), _face({"box": (left, top, right, bottom)})
                else:
                    for face in value:
                        yield name, _face(face)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{self.path}: the faces of {key!r} cannot be read ({error})") from error


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).with_suffix("").parts


def _common_ending(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many last parts two paths share."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _face(entry: dict[str, Any]) -> Face:
    x0, y0, x1, y1 = (float(side) for side in entry["box"])
    landmarks = np.array(entry.get("landmarks", _NO_LANDMARKS), dtype=np.float64)
    if landmarks.shape not in ((0, 2), (5, 2), (NUM_LANDMARKS, 2)):
        raise ValueError(f"landmarks are 5 or {NUM_LANDMARKS} points (x, y)")
    if not (np.isfinite([x0, y0, x1, y1]).all() and np.isfinite(landmarks).all() and x0 < x1 and y0 < y1):
        raise ValueError("a box is x0 < x1, y0 < y1, and numbers are finite")
    return Face((x0, y0, x1, y1), landmarks, float(entry.get("score", 0.0)))
