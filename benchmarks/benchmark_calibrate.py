#!/usr/bin/env python3
r"""Time `ddl-d2 calibrate` on the store of a large dataset: seconds, processor seconds, memory.

    python benchmarks/benchmark_calibrate.py --images 240000 --json calibrate.json

The dataset is made for this: a DDL-I split of empty files, one sixth of them real, and a store of random scores that
overlap, without maps. The command runs in a fresh process and reports its held-out check, as for a user. Bars at
240,000 images: 30 s, 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _machine import machine

from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.io.atomic import write_json
from ddl_d2.predictions.meta import make_meta
from ddl_d2.predictions.writer import PredictionStoreWriter

BAR_SECONDS, BAR_GIGABYTES = 30, 4


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=240_000, metavar="N", help="of the store (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def make_inputs(root: Path, images: int) -> None:
    """Write a dataset of empty files to `root/data` and a store of its scores to `root/store`."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(images) % 6 != 0
    scores = 1 / (1 + np.exp(-rng.normal(is_fake, 1.0)))
    for kind in ("fake", "real"):
        (root / "data/valid" / kind).mkdir(parents=True)
    with PredictionStoreWriter(root / "store", make_meta()) as writer:
        for number, (fake, score) in enumerate(zip(is_fake.tolist(), scores.tolist(), strict=True)):
            image_id = f"{'fake' if fake else 'real'}/{number:07d}.png"
            os.close(os.open(root / "data/valid" / image_id, os.O_CREAT | os.O_WRONLY))
            writer.add(image_id, score)


def measure(root: Path) -> dict[str, float]:
    """Run the command on what `make_inputs` wrote."""
    words = ["ddl_d2.cli.main", "calibrate", root / "store", "--dataset-root", root / "data", "--split", "valid"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "gigabytes": after.ru_maxrss / 1024**2,
    }


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Make the inputs, run the command, report."""
    args = build_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), args.images)
        found = measure(Path(folder))
    print(json.dumps(found, indent=2))
    print(f"bars at 240,000 images: {BAR_SECONDS} s, {BAR_GIGABYTES} GB")
    if args.json is not None:
        write_json(args.json, {"machine": machine(1, None, ""), "images": args.images, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
