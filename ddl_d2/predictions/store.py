"""Reading a prediction store: what a system said about many images, without the system (see `predictions/layout.py`).

Legend: N images; H x W pixels of one image.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import ImageReadError, StoreError
from ddl_d2.io.image import read_map
from ddl_d2.predictions.layout import CSV_COLUMNS, MAPS, META, PARTS, PREDICTIONS, SEGMENTS, check_image_id, map_path
from ddl_d2.predictions.meta import read_meta
from ddl_d2.predictions.segments import read_segments
from ddl_d2.utils.limits import MAX_PIXELS


class PredictionStore:
    """A complete store, checked when it is opened.

    Attributes:
        root: the store's folder.
        ids: N image ids, sorted.
        scores: (N,) float64 in [0, 1], P(fake), in the order of `ids`.
        labels: (N,) int8, 0 real, 1 fake, -1 unknown.
        seconds: (N,) float64, time spent on each image, NaN where unknown.
        meta: the content of `meta.json`.
        has_maps: whether the images have forgery maps.
        has_segments: whether they are clips, which have forged segments.
        without_face: ids of the images in which no face was found to be predicted.
        max_pixels: the most pixels an image may have: INPUT.MAX_PIXELS of the config that the predictions came from.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Open the store in the folder `root`.

        Raises:
            StoreError: a file is missing or malformed, an image is listed twice, its id is not a plain path, its score
                is not in [0, 1] or its map is missing.
        """
        self.root = Path(root)
        self._real_root = self.root.resolve()
        _check_complete(self.root)
        self.meta = read_meta(self.root)
        self.has_maps = bool(self.meta["has_maps"])
        self.has_segments = bool(self.meta.get("has_segments", False))
        self.without_face = frozenset(map(str, self.meta.get("without_face", ())))
        self.max_pixels = int(self.meta.get("max_pixels", MAX_PIXELS))
        path = self.root / PREDICTIONS
        self.ids, self.scores, self.labels, self.seconds = _read_predictions(path)
        if len(self.ids) != self.meta["num_images"]:
            raise StoreError(f"{path}: {len(self.ids)} images, but {META} says {self.meta['num_images']}")
        self._index = {image_id: index for index, image_id in enumerate(self.ids)}
        if self.has_maps:
            missing = [image_id for image_id in self.ids if not map_path(self.root, image_id).is_file()]
            if missing:
                raise StoreError(f"{self.root / MAPS}: {len(missing)} maps are missing, the first {missing[0]}.png")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def score(self, image_id: str) -> float:
        """Return P(fake) of one image. Raises StoreError if the store does not have the image."""
        return float(self.scores[self._position(image_id)])

    def read_map(self, image_id: str) -> NDArray[np.uint8]:
        """Return the forgery map of one image, uint8 H x W, 255 x probability.

        Raises:
            StoreError: the store does not have the image or has no maps, or the map cannot be read.
        """
        self._position(image_id)
        if not self.has_maps:
            raise StoreError(f"{self.root}: the store has no forgery maps")
        path = map_path(self.root, image_id)
        if not path.resolve().is_relative_to(self._real_root):
            raise StoreError(f"{path}: a link that leaves the store")
        try:
            return read_map(path, max_pixels=self.max_pixels)
        except (ImageReadError, OSError) as error:
            raise StoreError(f"{self.root}: the forgery map of {image_id} cannot be read: {error}") from error

    @cached_property
    def segments(self) -> dict[str, NDArray[np.float64]]:
        """The forged segments of all clips: {image_id: float64 K×3, [confidence, start, end] in seconds, best first}.

        Raises:
            StoreError: the store is not about clips, or the file cannot be read, or is not about its clips.
        """
        if not self.has_segments:
            raise StoreError(f"{self.root}: the store has no segments: it is not about clips")
        return read_segments(self.root / SEGMENTS, self.ids)

    def _position(self, image_id: str) -> int:
        try:
            return self._index[image_id]
        except KeyError:
            raise StoreError(f"{self.root}: no prediction for {image_id!r}") from None


def _check_complete(root: Path) -> None:
    if not root.is_dir():
        raise StoreError(f"{root}: there is no such folder")
    if (root / PREDICTIONS).is_file():
        return
    reason = f"no {PREDICTIONS}"
    if (root / PARTS).exists():
        reason = f"the run that wrote it was interrupted: {PREDICTIONS} is missing"
    raise StoreError(f"{root} is not a complete prediction store ({reason})")


def _read_predictions(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    """Return ids, scores, labels and seconds of `predictions.csv`, sorted by id. StoreError names the line."""
    rows: dict[str, tuple[float, int, float]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != CSV_COLUMNS:
                raise StoreError(f"{path}: the first line must be {','.join(CSV_COLUMNS)}")
            for fields in reader:
                image_id, values = _parse_line(fields, f"{path}, line {reader.line_num}")
                if image_id in rows:
                    raise StoreError(f"{path}, line {reader.line_num}: {image_id} is listed twice")
                rows[image_id] = values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    ids = sorted(rows)
    columns = list(zip(*(rows[image_id] for image_id in ids), strict=True)) or [(), (), ()]
    return ids, np.array(columns[0], np.float64), np.array(columns[1], np.int8), np.array(columns[2], np.float64)


def _parse_line(fields: list[str], where: str) -> tuple[str, tuple[float, int, float]]:
    if len(fields) != len(CSV_COLUMNS):
        raise StoreError(f"{where}: {len(fields)} fields, expected {len(CSV_COLUMNS)}")
    image_id, score_text, label_text, seconds_text = fields
    try:
        check_image_id(image_id)
        score = float(score_text)
        seconds = float(seconds_text) if seconds_text else math.nan
    except ValueError as error:  # StoreError included
        raise StoreError(f"{where}: {error}") from error
    if not 0 <= score <= 1:
        raise StoreError(f"{where}: the fake score of {image_id} is {score_text}, expected a number in [0, 1]")
    if label_text not in ("", "0", "1"):
        raise StoreError(f"{where}: the label of {image_id} is {label_text!r}, expected 0, 1 or nothing")
    return image_id, (score, int(label_text) if label_text else -1, seconds)
