"""Check a dataset and report every problem at once: how many, which, and what to do.

    ddl-d2 check-dataset ROOT [--split valid] [--deep] [--workers 4] [--json report.json]

ROOT is a folder or a JSON list in any layout of datasets/README.md. Without --deep only names are looked at; with it
every image and mask is decoded. Exit code 0: clean, 1: problems, 2: ROOT cannot be used at all.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ddl_d2.cli.common import cli_errors
from ddl_d2.data.datasets import DatasetColumns, VideoOptions, datasets_at, load_dataset
from ddl_d2.data.datasets.check import check_row
from ddl_d2.io.atomic import write_json
from ddl_d2.utils.limits import MAX_PIXELS

CHUNK = 64
WINDOW = 50_000


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("root", metavar="ROOT", help="a folder or a JSON list")
    parser.add_argument("--split", help="train, valid or test; default: every split that is found")
    parser.add_argument("--deep", action="store_true", help="decode every image and mask")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of --deep")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="the most pixels an image may have")
    parser.add_argument("--json", metavar="FILE", help="write the whole report here, too")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Check the dataset; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers < 1 or args.max_pixels < 1:
        parser.error("--workers and --max-pixels must be at least 1")
    parts = [(args.root, args.split)] if args.split else datasets_at(args.root)
    results = [check_split(args, root, split) for root, split in parts]
    for result in results:
        print(result["summary"])
        for line in result["lines"]:
            print(f"  {line}")
    problems = sum(sum(result["problems"].values()) for result in results)
    print(f"{problems} problems" if problems else "clean")
    if args.json:
        write_json(args.json, results)
    return 1 if problems else 0


def check_split(args: argparse.Namespace, root: str, split: str | None) -> dict[str, Any]:
    """The findings in one dataset."""
    rows, report = load_dataset(root, split, fake_without_mask="score", video=VideoOptions(max_pixels=args.max_pixels))
    if args.deep:
        for kind, example in deep(rows, functools.partial(check_row, max_pixels=args.max_pixels), args.workers):
            report.add(kind, example)
    labels = rows.labels
    real, fake, masks = int((labels == 0).sum()), int((labels == 1).sum()), int(rows.has_mask.sum())
    return {
        "root": rows.root,
        "images": len(rows),
        "real": real,
        "fake": fake,
        "with_mask": masks,
        "deep": args.deep,
        "summary": f"{rows.root}: {len(rows)} images, {real} real, {fake} fake ({masks} with a mask)"
        + (f" ({report.origin})" if report.origin else ""),
        "problems": report.problems,
        "counts": dict(report.counts),
        "examples": report.examples,
        "lines": report.lines(),
    }


def deep(
    rows: DatasetColumns, check: Callable[[dict[str, Any]], list[tuple[str, str]]], workers: int
) -> Iterator[tuple[str, str]]:
    """What `check` finds in every row, from `workers` processes; files that kill their process are found, too."""
    if workers == 1:
        for row in rows:
            yield from check(row)
        return
    # Forked workers start at once; this process has no threads yet that a fork would miss.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    done = 0
    while done < len(rows):
        window = rows[done : done + WINDOW]
        finished = 0
        try:
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                for findings in pool.map(check, window, chunksize=CHUNK):
                    yield from findings
                    finished += 1
        except BrokenProcessPool:
            # Somewhere in the chunks under way: say which they were, and go on behind them.
            behind = min(len(window), finished + workers * CHUNK)
            yield "reader_died", f"between {window[finished]['image_id']} and {window[behind - 1]['image_id']}"
            finished = behind
        done += finished
