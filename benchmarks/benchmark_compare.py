#!/usr/bin/env python3
r"""Time the comparison of two systems on a large dataset, breakdowns included: seconds, processor seconds, memory.

    python benchmarks/benchmark_compare.py --images 240000 --json compare.json

Scores and pixel counts of two systems are made up, as of images of four sizes, one sixth of them real, the others of 60
forgery types, from 8 sources, with up to 4 faces; reading them from stores is not in the figures. Bars at 240,000
images and 1,000 resamples, on two cores: 60 s, 4 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from _machine import machine

from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.evaluation import ImageResult, ResultTable, compare_tables
from ddl_d2.io.atomic import write_json

BAR_SECONDS, BAR_GIGABYTES = 60, 4


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=240_000, metavar="N", help="of the dataset (%(default)s)")
    parser.add_argument("--resamples", type=positive, default=1000, metavar="N", help="(%(default)s)")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="threads (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def make_table(images: int, seed: int) -> ResultTable:
    """Make up a system's results; the images are the same for every seed."""
    rng, of_images = np.random.default_rng(seed), np.random.default_rng(0)
    fake = np.arange(images) % 6 != 0
    kinds, sides = of_images.integers(0, 60, images), of_images.choice([256, 512, 1024, 2048], images)
    forged = (of_images.beta(1, 6, images) * sides**2).astype(np.int64) * fake
    hits, alarms = (forged * rng.random(images)).astype(np.int64), rng.integers(0, 100, images)
    scores = np.clip(rng.normal(0.3 + 0.3 * fake, 0.2), 0, 1).round(4)
    columns = (fake, kinds, sides, forged, hits, alarms, scores)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return ResultTable(
        ImageResult(
            f"{number:07d}.png",
            int(is_fake),
            score,
            (hit, alarm, area - hit, side * side - area - alarm),
            True,
            side,
            side,
            forgery_type=f"type {kind}" if is_fake else None,
        )
        for number, (is_fake, kind, side, area, hit, alarm, score) in enumerate(rows)
    )


def measure(images: int, resamples: int, workers: int) -> dict[str, float]:
    """Compare two systems once."""
    tables = {"first": make_table(images, 1), "second": make_table(images, 2)}
    names = [row.image_id for row in tables["first"]]
    facts = {
        "source": {name: f"source {number % 8}" for number, name in enumerate(names)},
        "faces": {name: str(number % 5) for number, name in enumerate(names)},
    }
    started, processor = time.perf_counter(), time.process_time()
    found = compare_tables(tables, facts=facts, resamples=resamples, workers=workers)
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
        "groups": sum(len(one.groups) for one in found.breakdowns),
    }


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Measure and report."""
    args = build_parser().parse_args(arguments)
    found = measure(args.images, args.resamples, args.workers)
    print(json.dumps(found, indent=2))
    print(f"bars at 240,000 images and 1,000 resamples: {BAR_SECONDS} s, {BAR_GIGABYTES} GB")
    if args.json is not None:
        about = {"images": args.images, "resamples": args.resamples, "workers": args.workers}
        write_json(args.json, {"machine": machine(1, None, ""), **about, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
