"""ONNX Runtime with an exported file against this project's own path, on the same images.

    python benchmarks/benchmark_export.py eyes_lite0 --threads 1 2 --size 240x320 480x640 --json export.json

Exports the weights (or takes --onnx FILE), then both predict whole images in turns, one at a time: pixels in, score and
map out. A model of faces gets its images as if they were crops. Both are checked to agree before they are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from tabulate import tabulate

from ddl_d2.cli.export import main as export
from ddl_d2.forging.photos import builtin_photos
from ddl_d2.inference.model import load_model
from ddl_d2.inference.onnx_predictor import OnnxPredictor
from ddl_d2.inference.predictor import ForgeryPredictor

AGREE = 1e-4


def parse_size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--config", metavar="NAME")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="exported before")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=parse_size, nargs="+", default=[(240, 320), (480, 640)])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    return parser


def measure(args: argparse.Namespace, threads: int) -> list[dict]:
    torch.set_num_threads(threads)
    loaded = load_model(args.weights, config=args.config, device="cpu", opts=args.opts)
    ours = ForgeryPredictor(loaded.predictor.model, loaded.predictor.augmentation)
    theirs = OnnxPredictor(args.onnx, threads=threads)
    photo = builtin_photos()[0].read()
    rows = []
    for height, width in args.size:
        image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        (found,), wanted = theirs.whole([image]), ours(image)
        difference = float(np.abs(found["forgery_map"] - wanted["forgery_map"].numpy()).max())
        if not difference <= AGREE:
            raise SystemExit(f"error: the maps differ by {difference:.1e} at {height} x {width}")
        times: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
        predictors = {"torch": ours, "onnxruntime": lambda image: theirs.whole([image])}
        for _ in range(args.rounds):
            for name, predict in predictors.items():
                start = time.perf_counter()
                predict(image)
                times[name].append(1e3 * (time.perf_counter() - start))
        rows.append({"threads": threads, "height": height, "width": width, "ms": times})
    return rows


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.worker:
        print(json.dumps(measure(args, args.threads[0])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        words = list(argv if argv is not None else sys.argv[1:])
        if args.onnx is None:
            path = Path(folder) / "exported.onnx"
            chosen = ["--config", args.config] if args.config else []
            export([args.weights, "--output", str(path), *chosen, "--opts", *args.opts])
            words = ["--onnx", str(path), *words]
        results = []
        for threads in args.threads:  # each in a process, which OpenMP's threads need
            command = [sys.executable, __file__, "--worker", *_before_opts(words, ["--threads", str(threads)])]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
            results += json.loads(done.stdout.splitlines()[-1])
    table = []
    for row in results:
        ours, theirs = (statistics.median(row["ms"][name]) for name in ("torch", "onnxruntime"))
        pairs = zip(row["ms"]["torch"], row["ms"]["onnxruntime"], strict=True)
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        size = f"{row['height']} x {row['width']}"
        table.append([row["threads"], size, f"{ours:.1f}", f"{theirs:.1f}", f"{ratio:.2f}"])
    print(f"{args.weights}, load average {os.getloadavg()[0]:.1f}, medians of {args.rounds} rounds in turns")
    print(
        tabulate(table, headers=["threads", "image", "torch, ms", "ONNX Runtime, ms", "ratio"], disable_numparse=True)
    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _before_opts(words: list[str], more: list[str]) -> list[str]:
    """Append options to a command line whose --opts takes all that follows."""
    place = words.index("--opts") if "--opts" in words else len(words)
    return [*words[:place], *more, *words[place:]]


if __name__ == "__main__":
    sys.exit(main())
