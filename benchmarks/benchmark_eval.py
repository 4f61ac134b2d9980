#!/usr/bin/env python3
"""Time this project's metrics against scikit-learn, torchmetrics and IMDL-BenCo, after checking that they agree.

    python benchmarks/benchmark_eval.py
    python benchmarks/benchmark_eval.py --scores 240000 --size 1024 --maps 200 --rounds 9 --json eval.json

1. ROC AUC of many image scores, one in ten of them tied.
2. F1 and IoU of forgery maps (float32 probabilities) against their masks, thresholding included, per map.
3. ROC AUC of the pixels of one map; also of the map as it is stored, in 8 bits.
4. Bytes that the processes of an evaluation send to the first one, for as many images as there are scores.
5. Evaluation of a prediction store of 512 x 512 maps, as `tools/evaluate.py` does it: how much of it is reading PNG.

Processor milliseconds on one thread, in turns in one process: medians, the minimum in brackets. scikit-learn and
torchmetrics are left out where they are not installed. IMDL-BenCo's own classes are used where that package can be
imported; otherwise its arithmetic, sums of products of float tensors and a trapezoid over an argsort, written anew.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _benco import BencoArithmetic, find_benco
from _random_maps import random_map, random_scores
from _stored_maps import FULL_SET, STORED_SIZE, stored_maps
from tabulate import tabulate

from ddl_d2.cli.common import cli_errors
from ddl_d2.evaluation import ImageResult
from ddl_d2.evaluation.functional import f1_iou_per_image, pixel_counts, roc_auc
from ddl_d2.io.atomic import write_json
from ddl_d2.predictions.maps import binarize_map, quantize_map
from ddl_d2.utils.malloc import keep_freed_memory

OURS, SKLEARN, TORCHMETRICS = "ddl_d2", "scikit-learn", "torchmetrics"
TARGETS = {
    f"image AUC / {SKLEARN}": 20.0,
    f"F1 + IoU / {TORCHMETRICS}": 40.0,
    "F1 + IoU / IMDL-BenCo": 10.0,
    "pixel AUC / IMDL-BenCo": 8.0,
}
TARGET_STATE_BYTES = 20_000_000
MAPS_IN_A_TURN = 8
Candidates = dict[str, Callable[[], tuple[float, ...]]]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=int, default=FULL_SET, help="image scores (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of the map, in pixels (%(default)s)")
    parser.add_argument("--maps", type=int, default=100, help="images of the prediction store (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every candidate (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    return parser


# The candidates of each task. Each has its inputs ready in its own type.


def image_auc(count: int) -> Candidates:
    labels, single = random_scores(count)
    scores = single.astype(np.float64)  # as `ResultTable.metrics` hands them over
    candidates: Candidates = {OURS: lambda: (roc_auc(labels, scores),)}
    if (oracle := _optional("sklearn.metrics")) is not None:
        candidates[SKLEARN] = lambda: (float(oracle.roc_auc_score(labels, scores)),)
    if (metrics := _optional("torchmetrics.classification")) is not None:
        metric, tensors = metrics.BinaryAUROC(thresholds=None), (torch.from_numpy(single), torch.from_numpy(labels))
        candidates[TORCHMETRICS] = lambda: _modular(tensors, metric)
    return candidates


def mask_scores(size: int, benco: BencoArithmetic) -> Candidates:
    """Each candidate goes through all maps in its turn: an evaluation meets every map but once, in a cold cache."""
    pairs = [random_map(size, seed) for seed in range(MAPS_IN_A_TURN)]
    tensors = [(torch.from_numpy(forgery_map), torch.from_numpy(mask)) for mask, forgery_map in pairs]
    batches = [(probabilities[None, None], mask.float()[None, None]) for probabilities, mask in tensors]

    def ours() -> tuple[float, ...]:
        counts = [pixel_counts(binarize_map(forgery_map), mask) for mask, forgery_map in pairs]
        return _flat(zip(*f1_iou_per_image(counts), strict=True))

    candidates: Candidates = {OURS: ours, benco.name: lambda: _flat(benco.f1_iou(*batch) for batch in batches)}
    if (metrics := _optional("torchmetrics.classification")) is not None:
        pair = metrics.BinaryF1Score(), metrics.BinaryJaccardIndex()
        integers = [(probabilities, mask.int()) for probabilities, mask in tensors]
        candidates[TORCHMETRICS] = lambda: _flat(_modular(inputs, *pair) for inputs in integers)
    return candidates


def _flat(results: Iterable[Iterable[float]]) -> tuple[float, ...]:
    return tuple(float(value) for result in results for value in result)


def pixel_auc(size: int, benco: BencoArithmetic) -> Candidates:
    mask, forgery_map = random_map(size)
    stored = quantize_map(forgery_map)
    batch, truth = torch.from_numpy(forgery_map)[None, None], torch.from_numpy(mask).float()[None, None]
    candidates: Candidates = {
        OURS: lambda: (roc_auc(mask.ravel(), forgery_map.ravel()),),
        f"{OURS}, 8 bits": lambda: (roc_auc(mask.ravel(), stored.ravel()),),
        benco.name: lambda: (benco.auc(batch, truth),),
    }
    if (oracle := _optional("sklearn.metrics")) is not None:
        candidates[SKLEARN] = lambda: (float(oracle.roc_auc_score(mask.ravel(), forgery_map.ravel())),)
    return candidates


def _modular(tensors: tuple[torch.Tensor, ...], *metrics: Any) -> tuple[float, ...]:
    """Update and compute of torchmetrics' classes, as in an evaluation loop."""
    for metric in metrics:
        metric.reset()
        metric.update(*tensors)
    return tuple(float(metric.compute()) for metric in metrics)


def _optional(module: str) -> Any:
    try:
        return __import__(module, fromlist=["_"])
    except ImportError:
        return None


# Agreement. torchmetrics and IMDL-BenCo reckon in float32, and the latter sums a million of them.
TOLERANCES = {OURS: 0.0, SKLEARN: 1e-12, TORCHMETRICS: 1e-6, f"{OURS}, 8 bits": 1e-4}
BENCO_TOLERANCE = 1e-4


def differences(candidates: Candidates) -> dict[str, float]:
    """The largest distance of each candidate's numbers from ours."""
    expected = candidates[OURS]()
    return {
        name: max(abs(a - b) for a, b in zip(function(), expected, strict=True))
        for name, function in candidates.items()
    }


def agree(found: Mapping[str, float]) -> bool:
    """Whether all distances are within what the candidates' number formats explain."""
    return all(distance <= TOLERANCES.get(name, BENCO_TOLERANCE) for name, distance in found.items())


def measure(candidates: Candidates, rounds: int, maps: int) -> dict[str, list[float]]:
    """{candidate: processor milliseconds per map of each round}; round 0 warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, function in candidates.items():
            start = time.process_time()
            function()
            if number:
                times[name].append(1000 * (time.process_time() - start) / maps)
    return times


def one_task(candidates: Candidates, rounds: int, maps: int = 1) -> dict[str, Any]:
    """Distances, times and ratios of one task, which goes through `maps` maps in each turn."""
    distances = differences(candidates)
    if not agree(distances):
        raise SystemExit(f"error: the candidates disagree, so their times mean nothing: {distances}")
    times = measure(candidates, rounds, maps)
    ours = statistics.median(times[OURS])
    return {
        "equal": True,
        "difference": distances,
        "ms": {name: statistics.median(values) for name, values in times.items()},
        "ms_minimum": {name: min(values) for name, values in times.items()},
        "faster": {name: statistics.median(values) / ours for name, values in times.items() if name != OURS},
    }


# The state of an evaluation.


def state(count: int) -> dict[str, Any]:
    """Size of what processes send, for `count` images of photographs' sizes and names like a hash's."""
    labels, scores = random_scores(count)
    rng = np.random.default_rng(1)
    rows = []
    for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
        height, width = rng.integers(300, 2000, 2).tolist()
        counts = rng.multinomial(height * width, [0.1, 0.05, 0.05, 0.8] if label else [0, 0.01, 0, 0.99])
        name = f"{'fake' if label else 'real'}/{rng.integers(2**48):012x}.jpg"
        rows.append(ImageResult(name, label, score, tuple(counts.tolist()), True, height, width))
    size = len(pickle.dumps(rows))
    return {"images": count, "bytes": size, "bytes_per_image": size / count}


# Output.


def ratios(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """{"task / candidate": how many times faster ours is}."""
    return {
        f"{task} / {name.removesuffix(chr(39) + 's arithmetic')}": faster
        for task, found in tasks.items()
        for name, faster in found["faster"].items()
        if not name.startswith(OURS)
    }


def tables(figures: Mapping[str, Any]) -> str:
    """What is printed."""
    rows = []
    for task, found in figures["tasks"].items():
        for name, ms in found["ms"].items():
            text = f"{ms:.3f} ({found['ms_minimum'][name]:.3f})"
            faster = f"{found['faster'][name]:.1f}x" if name in found["faster"] else ""
            rows.append([task, name, text, faster, f"{found['difference'][name]:.1e}"])
    kept, stored = figures["state"], figures["store"]
    parts = ", ".join(f"{part} {ms:.3f}" for part, ms in stored["ms_per_image"].items())
    met = [f"{name} {figures['ratios'][name]:.1f} (target {target:.0f})" for name, target in TARGETS.items()
           if name in figures["ratios"]]  # fmt: skip
    return "\n".join(
        [
            tabulate(rows, headers=["task", "candidate", "ms", "ours faster", "difference"], disable_numparse=True),
            "",
            f"state of {kept['images']} images: {kept['bytes'] / 1e6:.2f} MB, {kept['bytes_per_image']:.1f} "
            f"bytes each (target {TARGET_STATE_BYTES / 1e6:.0f} MB for {FULL_SET})",
            f"{stored['images']} stored maps of {STORED_SIZE} x {STORED_SIZE}, ms/image: {parts}; "
            f"{stored['share_decoding']:.0%} decoding, {stored['share_counting']:.0%} counting; "
            f"{FULL_SET} would take {stored['full_set_minutes_one_core']:.1f} minutes on one core",
            "times faster: " + "; ".join(met),
        ]
    )


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if min(args.rounds, args.maps - 1) < 1 or args.scores < 10 or args.size < 16:
        parser.error("--rounds must be at least 1, --maps 2, --scores 10, --size 16")
    torch.set_num_threads(1)
    keep_freed_memory()  # for all candidates alike, as tools/evaluate.py does
    benco = find_benco()
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}")
    tasks = {
        "image AUC": one_task(image_auc(args.scores), args.rounds),
        "F1 + IoU": one_task(mask_scores(args.size, benco), args.rounds, MAPS_IN_A_TURN),
        "pixel AUC": one_task(pixel_auc(args.size, benco), args.rounds),
    }
    figures: dict[str, Any] = {
        "machine": f"{platform.machine()}, torch {torch.__version__}, 1 thread",
        "load_average": os.getloadavg()[0],
        "imdl_benco": benco.name,
        "tasks": tasks,
        "ratios": ratios(tasks),
        "targets": TARGETS,
        "state": state(args.scores),
        "store": stored_maps(args.maps, min(args.rounds, 5)),
    }
    print(tables(figures))
    if args.json is not None:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
