"""Making files of a small dataset bad, in every way that a file can be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _training import small_config

TRAIN, VALID = 10, 3
"""Images of each label."""

SHARE = 0.1
"""What may be bad of the 2 x TRAIN rows: two."""


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove(path: Path) -> None:
    path.unlink()


def forbid(path: Path) -> None:
    path.chmod(0)


KINDS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "zero bytes": (empty, "{kind}", "is empty"),
    "truncated": (truncate, "{kind}", "cannot be decoded"),
    "text": (text, "{kind}", "not a readable"),
    "folder": (folder, "{kind}", "not a regular file"),
    "missing": (remove, "{kind}", "no such file"),
    "not allowed": (forbid, "{kind}", "ermission"),
    "mask of zero bytes": (empty, "masks", "is empty"),
    "mask truncated": (truncate, "masks", "cannot be decoded"),
}
"""What is done to the file, of which folder, and a part of the reason that is to be given."""


def spoil(root: Path, split: str, kind: str, count: int) -> dict[str, str]:
    """Make `count` rows bad, in turn fake and real (masks: fake ones); -> their image ids, and a part of the reason."""
    change, place, reason = KINDS[kind]
    bad = {}
    for number in range(count):
        label = "fake" if place == "masks" or number % 2 == 0 else "real"
        name = f"{number + 1}.png"
        change(root / split / place.format(kind=label) / name)
        bad[f"{label}/{name}"] = reason
    return bad


def fresh(template: Path, folder: Path) -> Path:
    """A copy of the set, to be spoilt. A new place each time: an index of a place's files is kept."""
    root = Path(tempfile.mkdtemp(dir=folder)) / "data"
    shutil.copytree(template, root)
    return root


def train_config(root: Path, *changes: object) -> Any:
    common = ["DATALOADER.MAX_BAD_SHARE", SHARE, "DATALOADER.SAMPLER_TRAIN", "ClassBalancedSampler"]
    return small_config(root, root.parent / "output", "SOLVER.IMS_PER_BATCH", 4, *common, *changes)
