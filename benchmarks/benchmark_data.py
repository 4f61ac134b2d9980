#!/usr/bin/env python3
"""Time this project's mapper against the usual Detectron2 mapper that does the same with the same random draws.

    python benchmarks/benchmark_data.py                                # images made for the purpose, 1024 x 1024
    python benchmarks/benchmark_data.py --dataset datasets/ddl_i --split train --count 32
    python benchmarks/benchmark_data.py --mask-bits 8 --allocator default --rounds 15 --json data.json

The usual mapper: `detection_utils.read_image` (Pillow), `T.ResizeTransform`, `T.CropTransform`, `T.HFlipTransform` and
Point-Rend's `ColorAugSSDTransform`, the mask by `apply_segmentation` (nearest neighbor), `BitMasks`. It is handed its
draws, while ours draws as it is timed; but each crop that ours has drawn it checks for its classes by `np.unique`, as
`T.RandomCrop_CategoryAreaConstraint` does (which would draw ten for every real image, where ours draws one).

Before anything is timed, both are compared: equal shapes, images equal to two gray levels before the colors (which
round twice in the usual way), masks equal when the usual mapper, too, resizes them by area. Prints processor
milliseconds per image on one thread, in turns in one process, the stages of both, and the images per second of the
training loader.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch
from _benchmark_images import dataset_images, made_images
from _mapper_comparison import compare_all, seed_of
from _mapper_stages import Stages, our_stages
from _usual_mapper import Row, draw_plan, usual_mapper
from detectron2.config import CfgNode
from tabulate import tabulate

from ddl_d2.cli.common import cli_errors
from ddl_d2.data.datasets import load_config
from ddl_d2.data.loader import TrainLoader, seeded
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.io.atomic import write_json
from ddl_d2.utils.malloc import keep_freed_memory

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "Base-Mask2Former.yaml"
TASKS = ("train, fake", "train, real", "test")
TARGET = 2.5


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, metavar="ROOT", help="a dataset; default: images made for this")
    parser.add_argument("--split", help="part of the dataset, such as train; default: all of it")
    parser.add_argument("--config-file", type=Path, default=CONFIG, help="its INPUT keys are used (%(default)s)")
    parser.add_argument("--count", type=int, default=16, help="images of each label (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of the images made, in pixels (%(default)s)")
    parser.add_argument("--mask-bits", type=int, choices=(1, 8), default=1, help="of the masks made (%(default)s)")
    parser.add_argument(
        "--allocator",
        choices=("kept", "default"),
        default="kept",
        help="freed memory is kept for both mappers, as tools/train_net.py does, or glibc's habits left alone, which "
        "cost the usual mapper more (%(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of every candidate (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    return parser


def measure(mappers: Mapping[str, ForgeryDatasetMapper], rows: Mapping[str, list[Row]], rounds: int) -> dict:
    """{(task, candidate): milliseconds per image of each round}; round 0 warms up and does not count.

    In a round each candidate goes once through all images, as in a loader: image by image, the one would pay for
    the memory that the other has just given back to the system.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for task, mapper in mappers.items():
            seeds = [seed_of(number, index) for index in range(len(rows[task]))]
            plans = [draw_plan(mapper, row, seed) for row, seed in zip(rows[task], seeds, strict=True)]
            start = time.process_time()
            for row, plan in zip(rows[task], plans, strict=True):
                usual_mapper(row, plan.usual, mapper.is_train, _unwatched)
            middle = time.process_time()
            for row, seed in zip(rows[task], seeds, strict=True):
                with seeded(0, seed):
                    mapper(row)
            end = time.process_time()
            for name, seconds in (("usual", middle - start), ("ddl_d2", end - middle)):
                if number:
                    times[task, name].append(1000 * seconds / len(rows[task]))
    return dict(times)


@contextmanager
def _unwatched(_: str) -> Iterator[None]:
    yield


def measure_stages(mappers: Mapping[str, ForgeryDatasetMapper], rows: Mapping[str, list[Row]], rounds: int) -> dict:
    """{task: {candidate: {stage: milliseconds per image}}}, the medians over the rounds."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(rounds + 1):
        for task, mapper in mappers.items():
            watches = {"usual": Stages(), "ddl_d2": Stages()}
            plans = [draw_plan(mapper, row, seed_of(number, index)) for index, row in enumerate(rows[task])]
            for row, plan in zip(rows[task], plans, strict=True):
                usual_mapper(row, plan.usual, mapper.is_train, watches["usual"])
            for index, row in enumerate(rows[task]):
                our_stages(mapper, row, seed_of(number, index), watches["ddl_d2"])
            for name, watch in watches.items():
                for stage, seconds in watch.seconds.items():
                    kept = found.setdefault(task, {}).setdefault(name, {}).setdefault(stage, [])
                    kept.extend([1000 * seconds / len(rows[task])] if number else [])
    return {
        task: {name: {stage: statistics.median(v) for stage, v in stages.items()} for name, stages in names.items()}
        for task, names in found.items()
    }


def measure_loader(mapper: ForgeryDatasetMapper, rows: list[Row], rounds: int, batch: int = 8) -> float:
    """Images per second of processor time of the whole training loader, in this process."""
    sampler = TrainingSampler(len(rows), seed=0)
    batches = iter(TrainLoader(rows, mapper=mapper, sampler=sampler, total_batch_size=batch))
    next(batches)
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        next(batches)
        seconds.append(time.process_time() - start)
    return batch / statistics.median(seconds)


def report(checks: dict, times: dict, stages: dict, loader: float) -> dict:
    """All figures, as they go to the JSON file."""
    tasks = {}
    for task in TASKS:
        ratios = [usual / ours for usual, ours in zip(times[task, "usual"], times[task, "ddl_d2"], strict=True)]
        tasks[task] = {
            "ms": {name: statistics.median(times[task, name]) for name in ("usual", "ddl_d2")},
            "ms_minimum": {name: min(times[task, name]) for name in ("usual", "ddl_d2")},
            "ratio": statistics.median(ratios),
            "stages_ms": stages[task],
        }
    both = [tasks["train, fake"]["ms"], tasks["train, real"]["ms"]]
    training = {name: sum(ms[name] for ms in both) / 2 for name in ("usual", "ddl_d2")}
    return {
        "machine": f"{platform.machine()}, torch {torch.__version__}, 1 thread",
        "load_average": os.getloadavg()[0],
        "checks": checks,
        "tasks": tasks,
        "ratios": {
            "train": training["usual"] / training["ddl_d2"],
            **{task: tasks[task]["ratio"] for task in TASKS},
        },
        "target_ratio": TARGET,
        "images_per_second_per_core": {
            "train": 1000 / training["ddl_d2"],
            "train, usual": 1000 / training["usual"],
            "test": 1000 / tasks["test"]["ms"]["ddl_d2"],
            "test, usual": 1000 / tasks["test"]["ms"]["usual"],
            "train loader": loader,
        },
    }


def tables(figures: dict) -> str:
    """What is printed."""
    rows = []
    for task, found in figures["tasks"].items():
        for name in ("usual", "ddl_d2"):
            ms = found["ms"][name]
            text = f"{ms:.2f} ({found['ms_minimum'][name]:.2f})"
            rows.append([task, name, text, f"{1000 / ms:.0f}", f"{found['ratio']:.2f}x" if name == "ddl_d2" else ""])
    heads = ["task", "mapper", "ms/image", "images/s/core", "faster"]
    stages = [
        [task, stage, *(f"{found['stages_ms'][name].get(stage, 0):.2f}" for name in ("usual", "ddl_d2"))]
        for task, found in figures["tasks"].items()
        for stage in dict.fromkeys([*found["stages_ms"]["usual"], *found["stages_ms"]["ddl_d2"]])
    ]
    speed = figures["images_per_second_per_core"]
    return "\n".join(
        [
            tabulate(rows, headers=heads, disable_numparse=True),
            "",
            tabulate(stages, headers=["task", "stage", "usual ms", "ddl_d2 ms"], disable_numparse=True),
            "",
            f"train loader (half real, half fake): {speed['train loader']:.0f} images/s/core",
            f"training, fakes and reals together: {figures['ratios']['train']:.2f} times the usual mapper; "
            f"testing: {figures['ratios']['test']:.2f} (target {TARGET})",
        ]
    )


def run(cfg: CfgNode, images: list[Row], rounds: int) -> dict:
    """Compare, then measure."""
    rows = {
        "train, fake": [row for row in images if row["is_fake"] == 1],
        "train, real": [row for row in images if row["is_fake"] == 0],
        "test": images,
    }
    train, test = ForgeryDatasetMapper(cfg, True), ForgeryDatasetMapper(cfg, False)
    mappers = dict(zip(TASKS, (train, train, test), strict=True))
    checks = compare_all(mappers, rows, rounds)
    print(
        f"{checks['compared']} images compared: shapes equal {checks['shapes_equal']}; before the colors at most "
        f"{checks.get('max_before_color', -1):.0f} apart (mean {checks.get('mean_before_color', -1):.5f}), after "
        f"them {checks.get('max_after_color', -1):.0f} (mean {checks.get('mean_after_color', -1):.3f}); masks equal "
        f"{checks['masks_equal']}, from nearest-neighbor ones {checks.get('mask_pixels_differ_from_nearest', -1):.3%} "
        "of the pixels differ"
    )
    if not (checks["images_equal"] and checks["shapes_equal"]):
        raise SystemExit("error: the two mappers do not give the same images, so their times mean nothing")
    times = measure(mappers, rows, rounds)
    stages = measure_stages(mappers, rows, min(rounds, 5))
    return report(checks, times, stages, measure_loader(train, images, rounds))


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if min(args.rounds, args.count) < 1 or args.size < 64:
        parser.error("--rounds and --count must be at least 1, --size at least 64")
    random.seed(0)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.allocator == "kept":
        keep_freed_memory()
    cfg = load_config(args.config_file)
    with tempfile.TemporaryDirectory() as folder:
        if args.dataset is None:
            images = made_images(Path(folder), args.count, args.size, args.mask_bits)
        else:
            images = dataset_images(args.dataset, args.split, args.count)
        print(f"{platform.machine()}, 1 thread, torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}")
        figures = run(cfg, images, args.rounds)
    figures["allocator"] = args.allocator
    print(tables(figures))
    if args.json is not None:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
