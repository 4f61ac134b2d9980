"""Writing a prediction store (see `predictions/layout.py`), from one process or several.

Until the store is completed, each process appends its lines to a file of its own under `.parts/`: memory does not grow
with the number or the size of the images. Only completing a store holds its lines (no maps).
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import StoreError
from ddl_d2.io.atomic import replacing, write_whole
from ddl_d2.io.image import write_png
from ddl_d2.predictions.layout import (
    CALIBRATION,
    CSV_COLUMNS,
    MAPS,
    META,
    METRICS,
    OLD,
    PARTS,
    PREDICTIONS,
    SCORE_TOLERANCE,
    SEGMENTS,
    VERDICTS,
    map_path,
)
from ddl_d2.predictions.meta import FORMAT_VERSION
from ddl_d2.predictions.segments import check_segments, rounded

_NO_FACE = "no face"  # behind the columns of a line, until the store is complete


class PredictionStoreWriter:
    """Writes a store, from one process or from several that share a file system.

    Use it as a context manager, or call `close`; a block left by an exception leaves no `predictions.csv`.

    Attributes:
        root: the store's folder.
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
        """Prepare the folder, and open the list of this process.

        Args:
            root: the store's folder; absent or empty unless `overwrite`.
            meta: JSON values for `meta.json`, see `meta.make_meta`.
            overwrite: replace a store, whole or interrupted, that is already there. Only a store's own files are
                removed; a folder that holds anything else is refused.
            rank: the number of this process among those that write.
            world_size: the number of processes that write.
            barrier: waits for all processes (`detectron2.utils.comm.synchronize`); needed for more than one.

        Raises:
            StoreError: the folder is in use, or meta is not JSON.
            OSError: the folder cannot be written.
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
            _set_aside(self.root)
        if barrier is not None:
            barrier()
        if rank == 0:
            # While the others work: a store of many maps takes minutes to delete on a network disk.
            shutil.rmtree(self.root / OLD, ignore_errors=True)
        self._part = _part(self.root, rank)
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO | None = open(_unfinished(self._part), "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._segments: TextIO | None = None
        self._has_maps: bool | None = None
        self._has_segments: bool | None = None
        self._lock = threading.Lock()

    def add(
        self,
        image_id: str,
        fake_score: float,
        forgery_map: NDArray[np.uint8] | None = None,
        *,
        label: int | None = None,
        seconds: float | None = None,
        has_face: bool = True,
        segments: NDArray[np.floating] | None = None,
    ) -> None:
        """Keep one prediction; several threads may do so.

        Args:
            image_id: relative POSIX path of the image.
            fake_score: P(fake) in [0, 1].
            forgery_map: uint8 H x W, 255 x probability (`predictions.maps.quantize_map`), at the image's original
                size; for every image or for none.
            label: 0 real, 1 fake, None unknown.
            seconds: time spent on the image, non-negative.
            has_face: False where images are cropped to faces and none was found in this one.
            segments: of a clip, K×3, [confidence, start, end] in seconds by falling confidence; for every clip or none.

        Raises:
            StoreError: a value is impossible.
            OSError: the map cannot be written.
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
        with self._lock:
            if self._has_maps not in (None, forgery_map is not None):
                raise StoreError(f"{image_id}: either all images of a store have a forgery map or none has")
            if self._has_segments not in (None, segments is not None):
                raise StoreError(f"{image_id}: either all clips of a store have segments or none has")
            self._has_maps, self._has_segments = forgery_map is not None, segments is not None
            if segments is not None:
                line = json.dumps([image_id, rounded(check_segments(segments, image_id))])
                self._segments = self._segments or open(_segments_part(self._part), "w", encoding="utf-8")  # noqa: SIM115
                self._segments.write(line + "\n")
        if forgery_map is not None:
            if forgery_map.dtype != np.uint8 or forgery_map.ndim != 2 or forgery_map.size == 0:
                raise StoreError(
                    f"{image_id}: a stored map is uint8 H x W, got {forgery_map.dtype} {forgery_map.shape}"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            # Level 1 takes a quarter of the time of 6, for a file half as large again.
            write_png(path, forgery_map, compress_level=1)
        time = "" if seconds is None else f"{seconds:.6f}"
        fields = (image_id, repr(fake_score), "" if label is None else int(label), time)
        with self._lock:
            self._writer.writerow(fields if has_face else (*fields, _NO_FACE))

    def close(self, barrier: Callable[[], None] | None = None) -> None:
        """Complete the store: every process its own list, then rank 0 `meta.json` and `predictions.csv`.

        Args:
            barrier: as in the constructor.

        Raises:
            StoreError: a process did not finish, or an image was predicted twice with different results. The folder
                is then not a store.
        """
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._segments is not None:
                self._segments.close()
            os.replace(_unfinished(self._part), self._part)
        finally:
            self._file = None
            if barrier is not None:
                barrier()
        if self._rank == 0:
            _complete(self.root, self._world_size, self._meta)

    def abort(self) -> None:
        """Stop writing without completing the store."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._segments is not None:
            self._segments.close()

    def __enter__(self) -> PredictionStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _complete(root: Path, world_size: int, meta: Mapping[str, Any]) -> None:
    """Make a store of the processes' lists and maps."""
    lines = _distinct(root, _lines_of_all(root, world_size))
    with_map = sum(map_path(root, line[0]).is_file() for line in lines)
    if with_map not in (0, len(lines)):
        raise StoreError(f"{root}: only {with_map} of {len(lines)} images have a forgery map")
    without_face = [line[0] for line in lines if _NO_FACE in line[len(CSV_COLUMNS) :]]
    counts: dict[str, Any] = {"without_face": without_face} if without_face else {}
    counts |= {"format_version": FORMAT_VERSION, "num_images": len(lines), "has_maps": with_map > 0}
    if _write_segments(root, world_size):
        counts["has_segments"] = True
    text = json.dumps({**meta, **counts}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(root / META, text, durable=True)
    with (
        replacing(root / PREDICTIONS, durable=True) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([CSV_COLUMNS, *(line[: len(CSV_COLUMNS)] for line in lines)])
    shutil.rmtree(root / PARTS)


def _lines_of_all(root: Path, world_size: int) -> list[list[str]]:
    """Return the lines of every process, each split into its fields."""
    parts = [_part(root, rank) for rank in range(world_size)]
    for rank, part in enumerate(parts):
        if not part.is_file():
            raise StoreError(f"{root}: process {rank} did not finish writing its predictions")
    lines: list[list[str]] = []
    for part in parts:
        with open(part, encoding="utf-8", newline="") as file:
            lines.extend(csv.reader(file))
    return lines


def _write_segments(root: Path, world_size: int) -> bool:
    """Put the segments that all processes found into one file, line by line; return whether there are any."""
    parts = [part for rank in range(world_size) if (part := _segments_part(_part(root, rank))).is_file()]
    if not parts:
        return False
    seen: set[str] = set()
    with replacing(root / SEGMENTS, durable=True) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for part in parts:
            with open(part, encoding="utf-8") as lines:
                for image_id, segments in map(json.loads, lines):
                    if image_id not in seen:
                        file.write(f"{',' if seen else '{'}\n{json.dumps(image_id)}: {json.dumps(segments)}")
                        seen.add(image_id)
        file.write("\n}\n")
    return True


def _distinct(root: Path, lines: list[list[str]]) -> list[list[str]]:
    """Return the lines sorted by image, each image once; of repeats that differ by rounding, the lowest score."""
    kept: list[list[str]] = []
    for line in sorted(lines, key=lambda line: (line[0], float(line[1]), line[2:])):
        if not kept or kept[-1][0] != line[0]:
            kept.append(line)
        elif kept[-1][2] != line[2] or abs(float(kept[-1][1]) - float(line[1])) > SCORE_TOLERANCE:
            raise StoreError(f"{root}: {line[0]} was predicted twice with unlike results")
    return kept


def _part(root: Path, rank: int) -> Path:
    return root / PARTS / f"{rank:05d}.csv"


def _segments_part(path: Path) -> Path:
    return path.with_suffix(".jsonl")


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
        what = "files"
        if names & {PREDICTIONS, PARTS}:
            what = "a prediction store" if PREDICTIONS in names else "what an interrupted run left"
        raise StoreError(f"{root} already holds {what}: choose another folder, or overwrite it explicitly")
    # The second case is what an overwriting that was itself interrupted leaves.
    if not names & {PREDICTIONS, PARTS} and not names <= {META, MAPS, SEGMENTS, METRICS, CALIBRATION, VERDICTS, OLD}:
        raise StoreError(f"{root} holds files but no prediction store: it will not be overwritten")


def _set_aside(root: Path) -> None:
    """Take a store's own files out of the way; the list first, so that what is left half-way is no store."""
    for name in (PREDICTIONS, METRICS, CALIBRATION, VERDICTS, META, SEGMENTS):
        (root / name).unlink(missing_ok=True)
    for folder in (MAPS, PARTS):
        if (root / folder).is_symlink():
            (root / folder).unlink()
        elif (root / folder).exists():
            (root / OLD).mkdir(exist_ok=True)
            (root / folder).rename(root / OLD / f"{folder}-{uuid.uuid4().hex}")
