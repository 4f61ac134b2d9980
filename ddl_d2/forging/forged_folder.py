"""The folder of a forged dataset: whether it may be written, its manifest, and what is finished in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddl_d2.errors import ForgeryError
from ddl_d2.io.atomic import write_json, write_whole

SPLITS = ("train", "valid")
MADE_BY = "tools/make_forgeries.py"
EXISTING = ("refuse", "resume", "overwrite")

Rows = dict[tuple[str, int], dict[str, Any]]
"""(split, index) -> that pair's line of manifest.jsonl."""


def check_folder(root: Path, settings: dict[str, Any], existing: str, *, made_by: str = MADE_BY) -> None:
    """Refuse a folder that may not be written.

    Args:
        root: the folder; it need not exist.
        settings: of the dataset to be made, as the manifest holds them.
        existing: one of `EXISTING`: what to do with a dataset that is there.
        made_by: what its manifest names as its maker.

    Raises:
        ForgeryError: something else is there, or it was made with other settings, or is to be left alone.
        ValueError: an unknown `existing`.
    """
    if existing not in EXISTING:
        raise ValueError(f"existing must be refuse, resume or overwrite, not {existing!r}")
    if root.exists() and not root.is_dir():
        raise ForgeryError(f"{root} is a file, not a folder")
    if not root.exists() or not any(root.iterdir()):
        return
    if existing == "refuse":
        completed = "--resume to complete it or " if made_by == MADE_BY else ""
        raise ForgeryError(f"{root} is not empty; use {completed}--overwrite to make it anew")
    old = _read_manifest(root, made_by)
    if existing == "resume" and old["settings"] != settings:
        raise ForgeryError(
            f"{root} was made with other settings ({old['settings']}); use --overwrite or another folder"
        )


def prepare_folder(root: Path, manifest: dict[str, Any], existing: str) -> Rows:
    """Start the manifest and the subfolders; empty the folder first if it is to be overwritten.

    Returns:
        The pairs that are there already.

    Raises:
        ForgeryError: a dataset that is to be resumed was made from other photographs.
    """
    if existing == "resume" and root.exists() and any(root.iterdir()):
        _check_same_photographs(root, manifest)
    if existing == "overwrite":
        for split in SPLITS:
            shutil.rmtree(root / split, ignore_errors=True)
    done = _finished(root) if existing == "resume" else {}
    write_json(root / "manifest.json", manifest)  # first: it marks the folder as ours
    write_rows(root, done.values())
    for split in SPLITS:
        for kind in ("real", "fake", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
    return done


def write_rows(root: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write manifest.jsonl, a line for each pair."""
    write_whole(root / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _check_same_photographs(root: Path, manifest: dict[str, Any]) -> None:
    if _read_manifest(root).get("photographs") != manifest["photographs"]:
        raise ForgeryError(f"{root} was made from other photographs; use --overwrite or another folder")


def _read_manifest(root: Path, made_by: str = MADE_BY) -> dict[str, Any]:
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        if manifest["made_by"] == made_by and "settings" in manifest:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForgeryError(f"{root} is not empty and has no manifest.json of a forged dataset: left alone") from error
    raise ForgeryError(f"{root} is not empty and holds something else than a forged dataset: left alone")


def _finished(root: Path) -> Rows:
    """The lines of manifest.jsonl whose three files are there; a line cut off by an interruption is dropped."""
    done = {}
    path = root / "manifest.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
            if all((root / row[key]).is_file() for key in ("real", "fake", "mask")):
                done[str(row["split"]), int(row["index"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return done
