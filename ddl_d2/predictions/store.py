"""The prediction store: a folder with what a system said about many images, and nothing of the system itself.

    STORE/
      predictions.csv    image_id,fake_score,label,seconds   one line per image, sorted by image_id
      maps/<image_id>.png    8-bit gray, 255 x probability, size of the image; all images have one, or none
      meta.json          config, sha256 of the weights, thresholds, versions

`image_id` is a relative POSIX path and keeps its own suffix, so the map of `real/a.jpg` is `maps/real/a.jpg.png`:
different ids give different files. A score is written so that it reads back to the same float. `label` and `seconds`
may be empty. `predictions.csv` is written last: a folder without it is no store. Until then each process appends its
lines to a file of its own under `.parts/`, so memory does not grow with the number or the size of the images; only
completing and reading a store hold its lines (no maps).
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import ImageReadError, StoreError
from ddl_d2.io.atomic import replacing, write_whole
from ddl_d2.io.image import read_map, write_png
from ddl_d2.version import __version__

CSV_COLUMNS = ("image_id", "fake_score", "label", "seconds")
FORMAT_VERSION = 1
SCORE_TOLERANCE = 1e-3
"""How far two scores of one image, predicted twice because a sampler padded its list, may lie apart."""

_CSV, _META, _MAPS, _PARTS = "predictions.csv", "meta.json", "maps", ".parts"
_METRICS = "metrics.json"  # where `ddl-d2 evaluate` puts what it computed from a store


def check_image_id(image_id: str) -> str:
    """Return `image_id` if it is a plain relative POSIX path, raise StoreError otherwise.

    Refused: anything that could leave the folder it is joined to (absolute, `..`, a drive, a backslash), anything
    with two spellings (`a//b`, `./a`), and control characters.
    """
    if not isinstance(image_id, str) or not image_id:
        raise StoreError(f"image_id must be a non-empty string, got {image_id!r}")
    # Lone surrogates stand for file names that are not UTF-8; they could not be written to the list.
    if any(ord(character) < 32 or character in "\\\x7f" or "\ud800" <= character <= "\udfff" for character in image_id):
        raise StoreError(f"image_id {image_id!r} contains a backslash, a control character or invalid UTF-8")
    parts = image_id.split("/")
    if any(part in ("", ".", "..") for part in parts) or (len(parts[0]) > 1 and parts[0][1] == ":"):
        raise StoreError(f"image_id {image_id!r} is not a plain relative path")
    return image_id


def map_path(root: str | os.PathLike[str], image_id: str) -> Path:
    """Where the map of an image lies in the store `root`. Raises StoreError for an id that is not a plain path."""
    return Path(root) / _MAPS / PurePosixPath(check_image_id(image_id) + ".png")


def make_meta(
    *, config: str = "", weights: str | os.PathLike[str] | None = None, threshold: float = 0.5, **extra: Any
) -> dict[str, Any]:
    """The content of `meta.json`: the configuration's text, the weights' sha256, the threshold and the versions.

    `extra` adds JSON values under further names. Raises OSError if the weights cannot be read.
    """
    versions = {"ddl_d2": __version__, "python": sys.version.split()[0], "numpy": np.__version__}
    if "torch" in sys.modules:
        versions["torch"] = str(sys.modules["torch"].__version__)
    digest = None if weights is None else file_sha256(weights)
    return {**extra, "config": config, "weights_sha256": digest, "threshold": threshold, "versions": versions}


class PredictionStoreWriter:
    """Writes a store, from one process or from several that share a file system.

    Use as a context manager, or call `close`; leaving the block by an exception leaves no `predictions.csv`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        meta: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
        rank: int = 0,
        world_size: int = 1,
        barrier: Callable[[], None] | None = None,
    ) -> None:
        """Args:
            root: the store's folder; must be absent or empty unless `overwrite`.
            meta: JSON values for `meta.json`, see `make_meta`.
            overwrite: replace a store, whole or interrupted, that is already there. Only a store's own files are
                removed; a folder that holds anything else is refused.
            rank, world_size: this process among those that write.
            barrier: waits for all processes (`detectron2.utils.comm.synchronize`); needed for more than one.

        Raises StoreError for a folder in use or meta that is not JSON, and OSError.
        """
        if not 0 <= rank < world_size:
            raise StoreError(f"rank {rank} is not below the world size {world_size}")
        if world_size > 1 and barrier is None:
            raise StoreError("several processes can only share a store with a barrier")
        self.root = Path(root)
        try:
            json.dumps(dict(meta or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StoreError(f"meta is not JSON: {error}") from error
        self._meta = dict(meta or {})
        self._rank, self._world_size = rank, world_size
        # All look before one clears: each then comes to the same conclusion.
        _check_free(self.root, overwrite)
        if barrier is not None:
            barrier()
        if rank == 0:
            _clear(self.root)
        if barrier is not None:
            barrier()
        self._part = self.root / _PARTS / f"{rank:05d}.csv"
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO | None = open(_unfinished(self._part), "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._has_maps: bool | None = None

    def add(
        self,
        image_id: str,
        fake_score: float,
        forgery_map: NDArray[np.uint8] | None = None,
        *,
        label: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Keep one prediction.

        Args:
            image_id: relative POSIX path of the image.
            fake_score: P(fake) in [0, 1].
            forgery_map: uint8 H x W, 255 x probability (`evaluation.functional.quantize_map`), at the image's
                original size; for every image or for none.
            label: 0 real, 1 fake, None unknown.
            seconds: time spent on the image, non-negative.

        Raises StoreError for impossible values and OSError if the map cannot be written.
        """
        if self._file is None:
            raise StoreError(f"{self.root}: the store is closed")
        path = map_path(self.root, image_id)
        fake_score = float(fake_score)
        if not 0 <= fake_score <= 1:
            raise StoreError(f"{image_id}: the fake score is {fake_score}, expected a number in [0, 1]")
        if label not in (0, 1, None):
            raise StoreError(f"{image_id}: the label is {label!r}, expected 0, 1 or None")
        if seconds is not None and not 0 <= seconds < math.inf:
            raise StoreError(f"{image_id}: the time is {seconds} seconds")
        if self._has_maps not in (None, forgery_map is not None):
            raise StoreError(f"{image_id}: either all images of a store have a forgery map or none has")
        if forgery_map is not None:
            if forgery_map.dtype != np.uint8 or forgery_map.ndim != 2 or forgery_map.size == 0:
                raise StoreError(
                    f"{image_id}: a stored map is uint8 H x W, got {forgery_map.dtype} {forgery_map.shape}"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, forgery_map)
        self._has_maps = forgery_map is not None
        time = "" if seconds is None else f"{seconds:.6f}"
        self._writer.writerow((image_id, repr(fake_score), "" if label is None else int(label), time))

    def close(self, barrier: Callable[[], None] | None = None) -> None:
        """Complete the store: every process its lines, then the first one `meta.json` and `predictions.csv`.

        `barrier` as in the constructor. Raises StoreError if a process did not finish or if an image was predicted
        twice with different results; the folder is then no store.
        """
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(_unfinished(self._part), self._part)
        finally:
            self._file = None
            if barrier is not None:
                barrier()
        if self._rank == 0:
            self._merge()

    def abort(self) -> None:
        """Stop writing without completing the store."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> PredictionStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _merge(self) -> None:
        parts = [self.root / _PARTS / f"{rank:05d}.csv" for rank in range(self._world_size)]
        for rank, part in enumerate(parts):
            if not part.is_file():
                raise StoreError(f"{self.root}: process {rank} did not finish writing its predictions")
        lines: list[list[str]] = []
        for part in parts:
            with open(part, encoding="utf-8", newline="") as file:
                lines.extend(csv.reader(file))
        lines.sort(key=lambda line: (line[0], float(line[1]), line[2:]))
        kept: list[list[str]] = []
        for line in lines:
            if not kept or kept[-1][0] != line[0]:
                kept.append(line)
            elif kept[-1][2] != line[2] or abs(float(kept[-1][1]) - float(line[1])) > SCORE_TOLERANCE:
                raise StoreError(f"{self.root}: {line[0]} was predicted twice with unlike results")
        with_map = sum(map_path(self.root, line[0]).is_file() for line in kept)
        if with_map not in (0, len(kept)):
            raise StoreError(f"{self.root}: only {with_map} of {len(kept)} images have a forgery map")
        has_maps = bool(kept) and with_map == len(kept)
        meta = {**self._meta, "format_version": FORMAT_VERSION, "num_images": len(kept), "has_maps": has_maps}
        text = json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n"
        write_whole(self.root / _META, text, durable=True)
        with (
            replacing(self.root / _CSV, durable=True) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([CSV_COLUMNS, *kept])
        shutil.rmtree(self.root / _PARTS)


class PredictionStore:
    """A complete store, checked when it is opened.

    Attributes:
        root: its folder.
        ids: image ids, sorted.
        scores: (N,) float64 in [0, 1], P(fake), in the order of `ids`.
        labels: (N,) int8, 0 real, 1 fake, -1 unknown.
        seconds: (N,) float64, NaN where unknown.
        meta: the content of `meta.json`.
        has_maps: whether the images have forgery maps.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Open a store. Raises StoreError if a file is missing or malformed, an image is listed twice, its id is not a
        plain path, its score is not in [0, 1] or its map is missing.
        """
        self.root = Path(root)
        self._real_root = self.root.resolve()
        self.meta = _read_meta(self.root)
        self.has_maps = bool(self.meta["has_maps"])
        self.ids, self.scores, self.labels, self.seconds = _read_predictions(self.root / _CSV)
        if len(self.ids) != self.meta["num_images"]:
            raise StoreError(f"{self.root / _CSV}: {len(self.ids)} images, but {_META} says {self.meta['num_images']}")
        self._index = {image_id: index for index, image_id in enumerate(self.ids)}
        if self.has_maps:
            missing = [image_id for image_id in self.ids if not map_path(self.root, image_id).is_file()]
            if missing:
                raise StoreError(f"{self.root / _MAPS}: {len(missing)} maps are missing, the first {missing[0]}.png")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def score(self, image_id: str) -> float:
        """P(fake) of one image. Raises StoreError if the store does not have it."""
        return float(self.scores[self._position(image_id)])

    def read_map(self, image_id: str) -> NDArray[np.uint8]:
        """The forgery map of one image, uint8 H x W, 255 x probability. Raises StoreError."""
        self._position(image_id)
        if not self.has_maps:
            raise StoreError(f"{self.root}: the store has no forgery maps")
        path = map_path(self.root, image_id)
        if not path.resolve().is_relative_to(self._real_root):
            raise StoreError(f"{path}: a link that leaves the store")
        try:
            return read_map(path)
        except (ImageReadError, OSError) as error:
            raise StoreError(f"{self.root}: the forgery map of {image_id} cannot be read: {error}") from error

    def _position(self, image_id: str) -> int:
        try:
            return self._index[image_id]
        except KeyError:
            raise StoreError(f"{self.root}: no prediction for {image_id!r}") from None


def file_sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".unfinished")


def _check_free(root: Path, overwrite: bool) -> None:
    """Raise StoreError unless a store may be written to `root`. Changes nothing."""
    if not root.exists():
        return
    if not root.is_dir():
        raise StoreError(f"{root} is not a folder")
    names = {entry.name for entry in root.iterdir()}
    if not names:
        return
    if not overwrite:
        what = "a prediction store" if _CSV in names else "what an interrupted run left" if _PARTS in names else "files"
        raise StoreError(f"{root} already holds {what}: choose another folder, or overwrite it explicitly")
    # The second case is what an overwriting that was itself interrupted leaves.
    if not names & {_CSV, _PARTS} and not names <= {_META, _MAPS, _METRICS}:
        raise StoreError(f"{root} holds files but no prediction store: it will not be overwritten")


def _clear(root: Path) -> None:
    """Remove a store's own files; the list first, so that what is left half-way is no store."""
    for name in (_CSV, _METRICS, _META):
        (root / name).unlink(missing_ok=True)
    for folder in (_MAPS, _PARTS):
        if (root / folder).is_symlink():
            (root / folder).unlink()
        elif (root / folder).exists():
            shutil.rmtree(root / folder)


def _read_meta(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise StoreError(f"{root}: there is no such folder")
    if not (root / _CSV).is_file():
        reason = (
            f"the run that wrote it was interrupted: {_CSV} is missing" if (root / _PARTS).exists() else f"no {_CSV}"
        )
        raise StoreError(f"{root} is not a complete prediction store ({reason})")
    try:
        meta = json.loads((root / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{root / _META} cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
        raise StoreError(f"{root / _META}: not a prediction store of format version {FORMAT_VERSION}")
    if not isinstance(meta.get("has_maps"), bool) or not isinstance(meta.get("num_images"), int):
        raise StoreError(f"{root / _META}: has_maps or num_images is missing")
    return meta


def _read_predictions(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    """Ids, scores, labels and seconds of `predictions.csv`, sorted by id; StoreError names the line."""
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
