"""The files of a prediction store, and what is allowed as the id of an image.

    STORE/
      predictions.csv        image_id,fake_score,label,seconds: one line per image, sorted by image_id
      maps/<image_id>.png    8-bit gray, 255 x probability, size of the image; all images have one, or none
      segments.json          of clips, instead of maps: {image_id: [[confidence, start, end], ...]}, seconds, best first
      meta.json              config, sha256 of the weights, thresholds, versions

An `image_id` is a relative POSIX path and keeps its own suffix: the map of `real/a.jpg` is `maps/real/a.jpg.png`, so
different ids give different files. A score is written so that it reads back to the same float. `label` and `seconds`
may be empty. `predictions.csv` is written last: a folder without it is not a store.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ddl_d2.errors import StoreError

CSV_COLUMNS = ("image_id", "fake_score", "label", "seconds")
"""The first line of `predictions.csv`."""

PREDICTIONS, META, MAPS, SEGMENTS = "predictions.csv", "meta.json", "maps", "segments.json"
"""The files and the folder of a complete store."""

PARTS = ".parts"
"""The folder of an unfinished store: one list per writing process."""

OLD = ".old"
"""The folder of what a new store replaces, until it is deleted."""

METRICS = "metrics.json"
"""Where tools/evaluate.py puts what it computed from a store."""

CALIBRATION, VERDICTS = "calibration.json", "verdicts.csv"
"""What `ddl-d2 calibrate` makes of a store, and what it says of each image of one."""

STORE_FILES = frozenset({PREDICTIONS, META, MAPS, SEGMENTS, PARTS, OLD, METRICS, CALIBRATION, VERDICTS})
"""What may lie in the folder of a store; a fused store never overwrites a folder with anything else."""

SCORE_TOLERANCE = 1e-3
"""How far two scores of one image may lie apart: a padded batch or another device changes the last digits."""


def check_image_id(image_id: str) -> str:
    """Return `image_id` if it is a plain relative POSIX path.

    Raises:
        StoreError: the id could leave the folder it is joined to (absolute, `..`, a drive, a backslash), has two
            spellings (`a//b`, `./a`), or contains control characters or invalid UTF-8.
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
    """Return the file of an image's forgery map in the store `root`.

    Raises:
        StoreError: the id is not a plain relative path, see `check_image_id`.
    """
    return Path(root) / MAPS / PurePosixPath(check_image_id(image_id) + ".png")
