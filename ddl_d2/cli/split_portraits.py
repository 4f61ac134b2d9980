"""Sort folders of portraits into training and validation sets by person, in DDL-I's layout, one set for each source.

    ddl-d2 split-portraits --output datasets/free_portraits \
        --source officials=portraits --source facelab=portraits2/facelab_london_canada \
        --source agencies=portraits2/us_pif --manifest portraits2/manifest.csv

writes OUTPUT/<source>/{train,valid}/real/. A source may be given several times: its folders are put together. Who a
portrait shows is the column `person` of the manifest, or else the file's name without what stands before its first "_"
(`house_jane-doe.jpg` and `senate_jane-doe.jpg` are one person). A person's portraits are all in one split.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ddl_d2.cli.common import cli_errors
from ddl_d2.data.datasets.listed_names import same_text, with_slashes
from ddl_d2.errors import DatasetError
from ddl_d2.io.file_kinds import file_kind, passed_over_note


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="NAME=DIR", help="a folder of portraits")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="columns file (relative to it) and person")
    parser.add_argument("--output", type=Path, required=True, metavar="ROOT", help="folder to make the sets in")
    parser.add_argument("--valid-share", type=float, default=0.12, help="share of persons kept for valid (%(default)s)")
    return parser


def persons(manifest: Path | None) -> dict[str, str]:
    """File -> person, from a manifest.

    Raises:
        DatasetError: no such file, or a column is missing.
    """
    if manifest is None:
        return {}
    if not manifest.is_file():
        raise DatasetError(f"{manifest}: no such manifest")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "person"} <= set(rows[0]):
        raise DatasetError(f"{manifest}: has no rows with the columns file and person")
    return {_place(manifest.parent / with_slashes(row["file"])): row["person"] for row in rows if row["person"]}


def _place(path: Path) -> str:
    """The absolute path, in one form of Unicode."""
    return same_text(str(path.resolve()))


def split_of(person: str, valid_share: float) -> str:
    """The split of a person: the same on every machine, whoever else there is."""
    digest = int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big")
    return "valid" if digest < valid_share * 2**64 else "train"


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Copy the portraits; returns the exit code."""
    args = build_parser().parse_args(argv)
    known = persons(args.manifest)
    for entry in args.source:
        name, _, folder = entry.partition("=")
        there = sorted(path for path in Path(folder).glob("*") if path.name[0] != "." and path.is_file())
        kinds = {path: file_kind(path) for path in there}
        files = [path for path, kind in kinds.items() if kind == "image"]
        if note := passed_over_note([path for path, kind in kinds.items() if kind != "image"], wanted="no images"):
            print(f"note: {folder}: {note}", file=sys.stderr)
        if not name or not files:
            raise DatasetError(f"--source {entry}: must be NAME=DIR, with images in DIR")
        counts = {"train": 0, "valid": 0}
        for path in files:
            split = split_of(known.get(_place(path)) or path.stem.partition("_")[2] or path.stem, args.valid_share)
            target = args.output / name / split / "real" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            counts[split] += 1
        print(f"{name}: {counts['train']} train, {counts['valid']} valid from {folder}")
    return 0
