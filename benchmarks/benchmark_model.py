#!/usr/bin/env python3
"""Time ForgeryMask2Former against Hugging Face transformers' Mask2Former: same weights, images and output.

    python benchmarks/benchmark_model.py                                   # inference and training on a CPU, 512 x 512
    python benchmarks/benchmark_model.py --mode inference --size 512x512 512x1024 --dtype float32 bfloat16
    python benchmarks/benchmark_model.py --mode training --backbone resnet50 --size 256x256 --profile
    python benchmarks/benchmark_model.py --device cuda --dtype bfloat16 --peer-dtype float32 bfloat16
    python benchmarks/benchmark_model.py --mode inference --memory --size 3648x5472 --no-peer
    python benchmarks/benchmark_model.py --quiet 600 --json result.json

Inference is from pixels to the forgery map at the same size; the peer's map is painted as the published code does.
Training is forward, backward, gradient clipping and AdamW, one target mask per image. Before anything is timed, both
must give the same logits and masks, and in training about the same first loss (the loss looks at random points).

Every candidate is a process of its own, since the C library reads its allocator's settings at the start. They take
turns, one computing at a time, so that a busy machine slows all alike. The peer runs with glibc's default allocator
and "tuned", that is keeping freed memory, as ddl_d2's own tools do (see ddl_d2/utils/malloc.py). Printed are medians
in milliseconds, the minimum in brackets, and the peer's time divided by ours, of medians and, in brackets, of minima.
OpenMP's threads wait for each other by spinning: if other programs want the same cores, times grow tenfold. Then use
--quiet, or OMP_WAIT_POLICY=PASSIVE, with which all candidates are about 15 to 30 % slower, but steady.

Exit code 1: the two models do not compute the same, or a process died.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import tempfile
from pathlib import Path

import torch
from _equality import check_equality, check_losses
from _machine import machine
from _processes import ALLOCATORS, BenchmarkError, Candidate, Process, take_turns
from tabulate import tabulate

from ddl_d2.io.atomic import write_json

DTYPES = ("float32", "bfloat16")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backbone", nargs="+", choices=["resnet50", "swin_tiny"], default=["resnet50", "swin_tiny"])
    add("--mode", nargs="+", choices=["inference", "training"], default=["inference", "training"])
    add("--size", nargs="+", type=parse_size, default=[(512, 512)], metavar="HxW", help="multiples of 32, from 64")
    add("--batch", type=int, help="images (default: 1 in inference, 2 in training)")
    add("--queries", type=int, default=100, help="queries of the decoder (default 100)")
    add("--dtype", nargs="+", choices=DTYPES, default=["float32"], help="ours; bfloat16 is by autocast")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--own-allocator", nargs="+", choices=["kept", "default"], default=["kept"],
        help="ours: keeping freed memory as the tools do, or glibc's default")  # fmt: skip
    add("--fp32-stride", type=int, choices=[0, 32], default=32,
        help="in bfloat16, TEST.FP32_STRIDE: the backbone in fp32 (32, the default) or not (0)")  # fmt: skip
    add("--compile", action="store_true", help="ours under torch.compile")
    add("--peer", action=argparse.BooleanOptionalAction, help="transformers (default: if it is installed)")
    add("--peer-dtype", nargs="+", choices=DTYPES, default=["float32"], help="the peer's")
    add("--allocator", nargs="+", choices=list(ALLOCATORS),
        help="the peer's (default: both on a CPU, default on a GPU)")  # fmt: skip
    add("--rounds", type=int, default=7, help="turns of every candidate that count (default 7)")
    add("--threads", type=int, help="CPU threads (default: PyTorch's)")
    add("--quiet", type=float, default=0.0, metavar="SECONDS",
        help="before each turn wait till others leave the cores alone, SECONDS at most for a table")  # fmt: skip
    add("--profile", action="store_true", help="also the milliseconds of our stages")
    add("--memory", action="store_true", help="peak memory of one run instead of times")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser


def parse_size(text: str) -> tuple[int, int]:
    numbers = text.split("x")
    if len(numbers) != 2 or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text}: expected HEIGHTxWIDTH, e.g. 512x1024")
    height, width = map(int, numbers)
    if height % 32 or width % 32 or min(height, width) < 64:
        raise argparse.ArgumentTypeError(f"{text}: both must be multiples of 32 (so that no model pads), from 64")
    return height, width


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    for name in ("rounds", "queries", "batch", "threads"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU (python -c 'import torch; print(torch.cuda.is_available())')")
    if arguments.profile and arguments.compile:
        parser.error("--profile cannot look into what --compile makes: choose one")
    if arguments.quiet and importlib.util.find_spec("psutil") is None:
        parser.error("--quiet needs psutil: pip install -e '.[bench]'")
    if arguments.peer is not False and importlib.util.find_spec("transformers") is None:
        message = "transformers is not installed; for the peer: pip install -e '.[bench]'"
        if arguments.peer:
            parser.error(message)
        print(f"note: {message}", file=sys.stderr)
        arguments.peer = False
    arguments.peer = arguments.peer is not False
    if arguments.allocator is None:
        arguments.allocator = list(ALLOCATORS) if arguments.device == "cpu" else ["default"]
    return arguments


def list_candidates(arguments: argparse.Namespace) -> list[Candidate]:
    """Ours first: the first writes the weights for all."""
    found = [Candidate("ddl_d2", *pair) for pair in itertools.product(arguments.dtype, arguments.own_allocator)]
    if arguments.peer:
        pairs = itertools.product(arguments.peer_dtype, arguments.allocator)
        found += [Candidate("transformers", *pair) for pair in pairs]
    return found


def measure(arguments: argparse.Namespace, mode: str, backbone: str, size: tuple[int, int]) -> dict:
    """All figures of one table."""
    batch = arguments.batch or (2 if mode == "training" else 1)
    result = {
        "mode": mode, "backbone": backbone, "height": size[0], "width": size[1], "batch": batch,
        "queries": arguments.queries, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    job = {key: result[key] for key in ("mode", "backbone", "height", "width", "batch", "queries")}
    job |= {"device": arguments.device, "threads": arguments.threads, "fp32_stride": arguments.fp32_stride}
    processes = [Process(candidate, arguments.threads) for candidate in list_candidates(arguments)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            job["weights"] = f"{folder}/weights.pth"
            if arguments.memory:
                write_weights(processes[0].candidate, job)
            for process in processes:
                result["machine"] = process.build(job, compile=arguments.compile)
            if arguments.memory:
                return result | {"memory": [{"candidate": str(p.candidate), **p.ask("memory")} for p in processes]}
            result["equality"] = check_equality(processes, Path(folder))
        result["candidates"] = take_turns(processes, arguments.rounds, arguments.quiet)
        if mode == "training":
            check_losses(result["candidates"])
        if arguments.profile:
            own = [p for p in processes if p.candidate.ours]
            result["profile"] = {str(p.candidate): p.ask("profile", rounds=arguments.rounds)["stages"] for p in own}
    finally:
        for process in processes:
            process.close()
    return result


def write_weights(candidate: Candidate, job: dict) -> None:
    """In a process that is not measured: to make them, it runs the backbone, and may keep that memory."""
    process = Process(candidate, job["threads"])
    try:
        process.build(job)
    finally:
        process.close()


def report(result: dict) -> str:
    title = "{mode}, {backbone}, {height}x{width}, batch {batch}, {queries} queries".format(**result)
    lines = [f"\n{title} (load average {result['load_average']:.1f})"]
    for name, outputs in result.get("equality", {}).items():
        shown = "; ".join(f"{key} {d['maximum']:.1e} (mean {d['mean']:.1e})" for key, d in outputs.items())
        lines.append(f"{name} - transformers, largest difference as a share of the range: {shown}")
    if "memory" in result:
        lines.append(memory_table(result["memory"]))
    if "candidates" in result:
        lines.append(times_table(result["candidates"], result["mode"] == "training"))
    if "profile" in result:
        stages = next(iter(result["profile"].values()))
        rows = [[stage, *(f"{ms[stage]:.1f}" for ms in result["profile"].values())] for stage in stages]
        lines += ["", tabulate(rows, headers=["stage, ms", *result["profile"]], disable_numparse=True)]
    return "\n".join(lines)


def times_table(candidates: list[dict], training: bool) -> str:
    own = [row["candidate"] for row in candidates if row["ours"]]
    table = []
    for row in candidates:
        cells = [row["candidate"], f"{row['median']:.1f} ({row['minimum']:.1f})"]
        cells += [f"{row['first_loss']:.3f}"] if training else []
        for name in own if not row["ours"] else ():
            cells.append(f"{row['ratio'][name]:.2f}x ({row['ratio_of_minima'][name]:.2f}x)")
        table.append(cells)
    headers = ["candidate", "ms", *(["first loss"] if training else [])]
    headers += [f"time / {name}" for name in own] if len(own) < len(candidates) else []
    return tabulate(table, headers=headers, disable_numparse=True)


def memory_table(rows: list[dict]) -> str:
    table = []
    for row in rows:
        before, peak = row["mib"]["before"], row["mib"]["peak"]
        table.append([row["candidate"], f"{before:.0f}", f"{peak:.0f}", f"{peak - before:.0f}", f"{row['ms']:.0f}"])
    headers = ["candidate", "MiB before", "at the peak", "more", "ms of this first run"]
    return tabulate(table, headers=headers, disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    results, about = [], None
    for cell in itertools.product(arguments.mode, arguments.backbone, arguments.size):
        try:
            result = measure(arguments, *cell)
        except BenchmarkError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if about is None:
            about = machine(**result["machine"])
            print(", ".join(f"{name} {value}" for name, value in about.items() if value is not None))
        results.append(result)
        print(report(result), flush=True)
        if arguments.json:  # after each table: the next may take an hour
            everything = {"machine": about, "arguments": vars(arguments), "results": results}
            write_json(arguments.json, everything, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main())
