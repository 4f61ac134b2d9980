"""Remembering on disk which faces an image has.

One small JSON file per image, named by what was looked at (the pixels) and by what looked (the finder's settings):
a file that is renamed or copied is found again, another model or setting starts afresh, and nothing ever goes stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.io.atomic import write_whole
from ddl_d2.io.cache_folder import cache_folder

_VERSION = 1


class CachedFaceFinder:
    """A face finder that looks at each image once.

    Several processes may share a folder: files are written whole or not at all. A damaged file is made again.

    Args:
        finder: what looks at images that are not in the cache.
        folder: where to keep the results, made if missing; None for the one that all tools share,
            `cache_folder("faces")`.

    Attributes:
        hits: calls answered from disk.
        misses: calls answered by `finder`.
    """

    def __init__(self, finder: FaceFinder, folder: str | Path | None = None) -> None:
        self.finder, self.folder = finder, cache_folder("faces") if folder is None else Path(folder)
        self.hits = self.misses = 0
        self._settings = json.dumps({"version": _VERSION, **finder.settings}, sort_keys=True).encode()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The finder's: the cache changes nothing."""
        return self.finder.settings

    def path(self, image: np.ndarray) -> Path:
        """Name the file in which the faces of `image` (uint8 H×W×3 RGB) are kept."""
        digest = hashlib.sha256(self._settings)
        digest.update(repr((image.shape, image.dtype.str)).encode())
        digest.update(np.ascontiguousarray(image).data)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of `image` (uint8 H×W×3 RGB), from left to right.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path(image)
        faces = _read(path)
        if faces is not None:
            self.hits += 1
            return faces
        self.misses += 1
        faces = self.finder(image)
        _write(path, faces)
        return faces


def _read(path: Path) -> list[Face] | None:
    """The faces kept in a file; None if there is no such file or it is damaged."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["faces"]
        return [_face(row) for row in rows]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # damaged: not JSON, or not ours
        return None


def _face(row: Mapping[str, Any]) -> Face:
    landmarks = np.array(row["landmarks"], dtype=np.float64)
    box = np.array(row["box"], dtype=np.float64)
    landmarks = landmarks.reshape(-1, 2)
    if len(landmarks) not in (68, 5, 0) or box.shape != (4,):
        raise ValueError("not a face")
    if not (np.isfinite(landmarks).all() and np.isfinite(box).all()):
        raise ValueError("not finite")
    x0, y0, x1, y1 = (float(v) for v in box)
    return Face((x0, y0, x1, y1), landmarks, float(row["score"]))


def _write(path: Path, faces: list[Face]) -> None:
    rows = [{"box": face.box, "score": face.score, "landmarks": face.landmarks.tolist()} for face in faces]
    write_whole(path, json.dumps({"faces": rows}))
