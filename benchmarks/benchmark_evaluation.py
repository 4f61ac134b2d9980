#!/usr/bin/env python3
r"""Time an evaluation with a prediction store, at this commit and at an earlier one.

    benchmarks/benchmark_evaluation.py --against ddd6103 --images datasets/ddl_i --weights weights/NAME.safetensors
    benchmarks/benchmark_evaluation.py --against ddd6103 --images ... --weights ... --side 896 --rounds 3 --json o.json

--images is a dataset in DDL-I's layout. Of its part `valid`, --count images, half of them fakes, are copied to a
folder made for this, resized to --side pixels (0: as they are), and from the start again where there are fewer. Both
commits evaluate them in turn, each in a fresh process with its own package (the compiled op is this one's), and have to
give the same metrics, scores and maps, to the last bit. What is measured begins with the first image and ends with
metrics.json: seconds on the clock, and of the processors, data workers included; a busy machine changes the first more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
from _machine import machine
from tabulate import tabulate

from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.io.atomic import write_json

ROOT = Path(__file__).resolve().parent.parent
RUN = Path(__file__).with_name("_evaluation_run.py")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the earlier commit")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="ROOT", help="a dataset with valid/{real,fake,masks}"
    )
    parser.add_argument(
        "--config-file", default="release/eyes_lite0", metavar="NAME", help="known to both (%(default)s)"
    )
    parser.add_argument("--weights", required=True, type=Path, metavar="FILE", help="of that config")
    parser.add_argument("--count", type=positive, default=2000, metavar="N", help="images (%(default)s)")
    parser.add_argument("--side", type=int, default=0, metavar="PIXELS", help="to which they are resized; 0: not")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="of each commit (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="data workers (%(default)s)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the network (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser


def copy_images(source: Path, target: Path, count: int, side: int) -> None:
    """Copy pairs of a real and a fake image, and the fakes' masks, under numbers."""
    found = {kind: sorted((source / "valid" / kind).iterdir()) for kind in ("real", "fake")}
    masks = {path.stem: path for path in (source / "valid" / "masks").iterdir()}
    for kind in ("real", "fake", "masks"):
        (target / "valid" / kind).mkdir(parents=True)
    for number in range(count // 2):
        for kind, paths in found.items():
            path = paths[number % len(paths)]
            copy_image(path, target / "valid" / kind / f"{number:05d}{path.suffix}", side, cv2.INTER_CUBIC)
            if kind == "fake":
                copy_image(masks[path.stem], target / f"valid/masks/{number:05d}.png", side, cv2.INTER_NEAREST)


def copy_image(source: Path, target: Path, side: int, how: int) -> None:
    """Copy an image, resized if `side` is not 0."""
    if side:
        cv2.imwrite(
            str(target), cv2.resize(cv2.imread(str(source), cv2.IMREAD_UNCHANGED), (side, side), interpolation=how)
        )
    else:
        shutil.copyfile(source, target)


def evaluate(tree: Path, args: argparse.Namespace, data: Path, output: Path) -> dict[str, Any]:
    """Run one evaluation with the package in `tree`; returns what `_evaluation_run.py` says."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(args.threads)}
    options = ["MODEL.WEIGHTS", str(args.weights.resolve()), "DATALOADER.NUM_WORKERS", str(args.workers)]
    command = [
        sys.executable,
        str(RUN),
        "--config-file",
        args.config_file,
        "--data",
        str(data),
        "--output",
        str(output),
    ]
    done = subprocess.run([*command, "--opts", *options], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: the evaluation in {tree} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Evaluate in turn; returns the runs of each commit, all with the same results."""
    data, earlier = folder / "data", folder / "earlier"
    copy_images(args.images, data, args.count, args.side)
    add = ["git", "-C", str(ROOT), "worktree", "add", "--detach", "--quiet", str(earlier), args.against]
    subprocess.run(add, check=True)
    try:
        for op in (ROOT / "ddl_d2").glob("_C*.so"):
            shutil.copy(op, earlier / "ddl_d2")
        runs: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
        for number in range(args.rounds):
            for name, tree in (("before", earlier), ("after", ROOT)):
                output = folder / f"{name}{number}"
                runs[name].append(evaluate(tree, args, data, output))
                shutil.rmtree(output)
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(earlier)], check=True)
    first = runs["before"][0]
    for run in (*runs["before"], *runs["after"]):
        if (run["metrics"], run["predictions"]) != (first["metrics"], first["predictions"]):
            raise SystemExit("error: the commits do not give the same results, so their times mean nothing")
    return runs


def report(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All figures, as they go to the JSON file."""
    medians = {
        name: {what: statistics.median(run[what] for run in found) for what in ("wall", "cpu")}
        for name, found in runs.items()
    }
    return {
        "machine": machine(args.threads, None, ""),
        "load_average": os.getloadavg()[0],
        "against": args.against,
        "count": args.count,
        "side": args.side,
        "workers": args.workers,
        "equal": True,
        "seconds": {
            name: [{what: run[what] for what in ("wall", "cpu")} for run in found] for name, found in runs.items()
        },
        "median": medians,
        "times_as_fast": {what: medians["before"][what] / medians["after"][what] for what in ("wall", "cpu")},
        "metrics": runs["after"][0]["metrics"],
    }


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddl_d2-evaluation-") as folder:
        figures = report(args, measure(args, Path(folder)))
    rows = [
        [
            what,
            *(f"{figures['median'][name][key]:.1f}" for name in ("before", "after")),
            f"{figures['times_as_fast'][key]:.2f}",
        ]
        for what, key in (("seconds", "wall"), ("processor seconds", "cpu"))
    ]
    print(f"{args.count} images, medians of {args.rounds} rounds in turn, load average {figures['load_average']:.1f}")
    print(tabulate(rows, headers=["", args.against, "this commit", "times as fast"], disable_numparse=True))
    if args.json is not None:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
