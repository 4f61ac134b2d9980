"""Choosing the checkpoint from which a run goes on: the newest that is whole."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch

from ddl_d2.errors import CheckpointError

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"
"""The file that names the checkpoint written last, as Detectron2's."""


class Saved(NamedTuple):
    """A checkpoint that looks whole.

    Attributes:
        path: its file.
        iteration: the last one done.
        written: when, in nanoseconds.
    """

    path: Path
    iteration: int
    written: int


def newest_valid(folder: str | Path, needs: Collection[str] = ("trainer",)) -> Path | None:
    """Find the checkpoint in a folder to resume from, every byte of it checked; None if there is none at all.

    That is the one which the tag names, or one written after the tag at a later iteration (where a crash came between
    the two); failing these, the newest of the rest. What is wrong with the tag and with files passed over is logged.

    Args:
        folder: a run's output folder.
        needs: what a checkpoint holds besides weights. Files that do not are left aside.

    Raises:
        CheckpointError: there are checkpoints, but not one is valid; it says what is wrong with each.
    """
    folder = Path(folder)
    problems: dict[str, str] = {}
    saved = []
    for path in folder.glob("*.pth"):
        try:
            saved += _look_into(path, needs)
        except CheckpointError as error:
            problems[path.name] = str(error)
    name = _tagged(folder, bool(saved or problems))
    for candidate in _in_order(folder, name, saved):
        damage = damage_of(candidate.path)
        if damage is None:
            for bad, problem in sorted(problems.items()):
                logger.warning("Not resumed from %s: %s", bad, problem)
            return candidate.path
        problems[candidate.path.name] = damage
    if not problems:
        return None
    listed = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
    raise CheckpointError(
        f"{folder}: no checkpoint to resume from ({listed}). Start without --resume, or put a good one there"
    )


def config_to_resume(folder: str | Path) -> str:
    """Return the config of the checkpoint that a run in `folder` goes on from, as YAML; "" without one.

    Raises:
        CheckpointError: as `newest_valid`.
    """
    path = newest_valid(folder) if os.path.isdir(folder) else None
    config = read_lightly(path).get("config") if path else None
    return config if isinstance(config, str) else ""


def damage_of(path: str | Path) -> str | None:
    """Say what is wrong with the bytes of a checkpoint, by their checksums; None if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"damaged ({error})"
    return f"damaged (checksum of {record})" if record else None


def read_lightly(path: str | Path) -> dict:
    """Read a `.pth` file; its tensors stay on the disk until they are used.

    Raises:
        CheckpointError: it is damaged or not a checkpoint; the message does not name the file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"not readable ({str(error).splitlines()[0][:200]})") from error
    except (AttributeError, ImportError, IndexError, TypeError, AssertionError) as error:
        # What damage makes of the pickle's opcodes.
        raise CheckpointError(f"damaged ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a dict")
    return content


def _look_into(path: Path, needs: Collection[str]) -> list[Saved]:
    """Return the one checkpoint in the file; none, where it holds weights only."""
    content = read_lightly(path)
    iteration = content.get("iteration")
    if not content.keys() >= set(needs) or not isinstance(iteration, int):
        return []
    return [Saved(path, iteration, path.stat().st_mtime_ns)]


def _tagged(folder: Path, expected: bool) -> str | None:
    """Return the file that the tag names, if it can be used; else log why not."""
    try:
        with open(folder / TAG, "rb") as f:
            content = f.read(4096)
    except FileNotFoundError:
        if expected:
            logger.warning("%s: the tag %s is missing; taking the newest valid checkpoint", folder, TAG)
        return None
    except OSError as error:
        logger.warning("%s: the tag %s cannot be read (%s); taking the newest valid one", folder, TAG, error.strerror)
        return None
    name = content.decode("utf-8", errors="replace").strip()
    if not name or not name.isprintable():
        problem = "is empty" if not name else f"is no file name ({name[:40]!r})"
    elif os.path.basename(name) != name or name in (".", ".."):
        problem = f"names a place outside the folder ({name[:200]})"
    elif not os.path.isfile(folder / name):
        problem = f"names {name[:200]}, which is not there"
    else:
        return name
    logger.warning("%s: the tag %s %s; taking the newest valid checkpoint", folder, TAG, problem)
    return None


def _in_order(folder: Path, name: str | None, saved: list[Saved]) -> list[Saved]:
    """Sort `saved`: the one to try first comes first."""
    newest_first = sorted(saved, key=lambda s: (s.written, s.iteration), reverse=True)
    tagged = next((s for s in saved if s.path.name == name), None)
    if tagged is None:
        return newest_first
    tag_written = (folder / TAG).stat().st_mtime_ns
    # A user who writes an earlier name into the tag, to go on from there, is obeyed: the tag is newer than all files.
    later = [s for s in newest_first if s.written > tag_written and s.iteration > tagged.iteration]
    rest = [s for s in newest_first if s not in later and s is not tagged]
    return [*later, tagged, *rest]
