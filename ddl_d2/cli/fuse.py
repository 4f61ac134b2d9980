"""Fuse several systems' saved predictions into one prediction store, without a model.

    ddl-d2 fuse average A B --weights 1 2.5 --map-weights 1 0 --output FUSED
    ddl-d2 fuse mdmf LFDL MITL --output FUSED
    ddl-d2 fuse segments A B --score max --output FUSED
    ddl-d2 fuse search A B --dataset-root ROOT --split train --report A2 B2 --report-split valid

average: weighted mean of the probabilities; here detection from both, masks from the first, as the published ensemble.
mdmf: the first system's mask dilated, together with the second's eroded; scores from the first, as published.
segments: what two systems on clips found, together; of repetitions the surer one counts (soft-NMS).
search: the weights that do best on one labeled set, and what they are worth on another; writes no store.

Stores must hold the same images. Labels they know are carried over. A map of another size than the first store's is
resized to it. Measure the result with `ddl-d2 evaluate`. Exit code 0: done, 2: the input cannot be used.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from ddl_d2.cli.common import cli_errors, count, positive, threshold
from ddl_d2.data.datasets import VideoOptions, load_dataset
from ddl_d2.errors import FusionError
from ddl_d2.evaluation import write_metrics
from ddl_d2.fusion import (
    FUSION_MODES,
    AlignedStores,
    LabeledPredictions,
    SearchResult,
    align_stores,
    average_maps,
    average_scores,
    check_disjoint,
    check_weights,
    fuse_masks,
    label_predictions,
    report_weights,
    search_weights,
)
from ddl_d2.fusion.fused_store import FuseMaps, write_fused_store
from ddl_d2.fusion.morphology import check_kernel
from ddl_d2.fusion.search import MAP_METRICS
from ddl_d2.fusion.segments import SCORE_RULES, fused_clip_scores, fused_segments_of_all
from ddl_d2.predictions.maps import binarize_map
from ddl_d2.predictions.meta import make_meta
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.malloc import keep_freed_memory

SCORES = ("first", "second", "mean", "max")
KERNEL_MODES = ("paper", "released")


def build_parser() -> argparse.ArgumentParser:
    """The command line: four commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--intersection", action="store_true", help="use what all sides have, where they differ")
    common.add_argument("--workers", type=positive, default=2, metavar="N", help="threads (default: 2)")
    into = argparse.ArgumentParser(add_help=False)
    into.add_argument("--output", type=Path, required=True, metavar="STORE", help="the new prediction store")
    into.add_argument("--overwrite", action="store_true", help="replace a prediction store that lies there")
    add = partial(commands.add_parser, allow_abbrev=False)
    _add_average(add("average", help="weighted mean", parents=[into, common]))
    _add_mdmf(add("mdmf", help="morphological fusion of two systems' masks", parents=[into, common]))
    _add_segments(add("segments", help="the segments of systems on clips", parents=[into, common]))
    _add_search(add("search", help="find weights", parents=[common]))
    return parser


def _add_average(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="prediction stores, two or more")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one per store (default: equal)")
    parser.add_argument("--map-weights", nargs="+", type=float, metavar="W", help="of the maps (default: --weights)")
    parser.set_defaults(run=_average)


def _add_mdmf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stores", nargs=2, type=Path, metavar="STORE", help="the coarse system, then the fine one")
    parser.add_argument(
        "--mode",
        choices=FUSION_MODES,
        default="paper",
        help="dilated first OR eroded second; both closed, then OR; plain OR; plain AND (default: paper)",
    )
    parser.add_argument("--kernel", type=int, metavar="K", help="of K x K ones, K odd (default: 5)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of each dilation and erosion (default: 1)")
    parser.add_argument("--threshold", type=threshold, default=0.5, help="forged above it (default: 0.5)")
    parser.add_argument("--score", choices=SCORES, default="first", help="of the image (default: first)")
    parser.set_defaults(run=_mdmf)


def _add_segments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="prediction stores, two or more")
    parser.add_argument("--score", choices=SCORE_RULES, default="max", help="of the clip (default: max)")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="segments of a clip (default: 100)")
    parser.set_defaults(run=_segments)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="prediction stores, two or more")
    parser.add_argument("--dataset-root", required=True, type=Path, metavar="ROOT", help="what the stores predict")
    parser.add_argument("--split", help="part of it, such as train; default: all of it")
    parser.add_argument(
        "--report", nargs="+", required=True, type=Path, metavar="STORE", help="the same systems on other images"
    )
    parser.add_argument("--report-root", type=Path, metavar="ROOT", help="those images (default: --dataset-root)")
    parser.add_argument("--report-split", metavar="SPLIT", help="part of them")
    parser.add_argument("--step", type=float, default=0.05, help="of the weights, which sum to 1 (default: 0.05)")
    parser.add_argument(
        "--map-metric", choices=MAP_METRICS, default="final", help="of the maps; final: F1 + IoU (default: final)"
    )
    parser.add_argument("--threshold", type=threshold, default=0.5, help="forged above it (default: 0.5)")
    parser.add_argument("--frames-per-video", type=count, default=32, metavar="N", help="as predicted; 0 = all")
    parser.add_argument("--compression", default="c23", metavar="LEVEL", help="of FaceForensics++ (default: c23)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write everything as JSON")
    parser.set_defaults(run=_search)


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.command == "mdmf" and args.mode not in KERNEL_MODES and {args.kernel, args.iterations} != {None}:
        parser.error(f"--kernel and --iterations do nothing in --mode {args.mode}")
    if args.command == "search" and len(args.report) != len(args.stores):
        parser.error("--report takes the same systems as are searched, in their order, so as many stores")
    keep_freed_memory()  # each map would start in new pages of the system's, which cost more than decoding it
    args.run(args)
    return 0


def _average(args: argparse.Namespace) -> None:
    systems = _opened(args.stores, args.intersection)
    weights = args.weights or [1.0] * len(args.stores)
    map_weights = args.map_weights or weights
    check_weights(map_weights, len(args.stores))
    scores = average_scores(systems.scores, weights)
    map_stores = [store for store, weight in zip(systems.stores, map_weights, strict=True) if weight]
    if not any(store.has_maps for store in systems.stores) and not args.map_weights:
        map_stores, map_weights = [], []
    _check_maps(map_stores, "give those stores the weight 0 (--map-weights)")
    fuse = partial(average_maps, weights=[weight for weight in map_weights if weight])
    _write(args, systems, scores, map_stores, fuse, {"weights": weights, "map_weights": map_weights})


def _mdmf(args: argparse.Namespace) -> None:
    settings: dict[str, Any] = {"mode": args.mode, "threshold": args.threshold, "score": args.score}
    kernel: dict[str, int] = {}
    if args.mode in KERNEL_MODES:
        kernel = {
            "kernel_size": 5 if args.kernel is None else args.kernel,
            "iterations": 1 if args.iterations is None else args.iterations,
        }
        check_kernel(**kernel)
    systems = _opened(args.stores, args.intersection)
    _check_maps(systems.stores, "MDMF fuses masks")
    first, second = systems.scores
    scores = {"first": first, "second": second, "mean": average_scores(systems.scores, (1, 1))}
    scores["max"] = np.maximum(first, second)

    def fuse(maps: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        one, other = (binarize_map(forgery_map, args.threshold) for forgery_map in maps)
        return fuse_masks(one, other, mode=args.mode, **kernel) * np.uint8(255)

    _write(args, systems, scores[args.score], systems.stores, fuse, {**settings, **kernel})


def _no_maps(maps: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    raise FusionError(f"clips have no maps to fuse, and there are {len(maps)}")


def _segments(args: argparse.Namespace) -> None:
    systems = _opened(args.stores, args.intersection)
    segments = fused_segments_of_all(systems, limit=args.limit)
    settings = {"score": args.score, "limit": args.limit}
    _write(args, systems, fused_clip_scores(systems, args.score), [], _no_maps, settings, segments)


def _opened(paths: Sequence[Path], intersection: bool) -> AlignedStores:
    stores = [PredictionStore(path) for path in paths]
    systems = align_stores(stores, intersection=intersection)
    if any(len(store) > len(systems.ids) for store in stores):
        left_out = ", ".join(f"{len(store) - len(systems.ids)} of {store.root}" for store in stores)
        print(f"note: only {len(systems.ids)} images are in all stores; left out: {left_out}", file=sys.stderr)
    return systems


def _check_maps(stores: Sequence[Any], advice: str) -> None:
    if without := [str(store.root) for store in stores if not store.has_maps]:
        raise FusionError(f"no forgery maps in {', '.join(without)}: {advice}")


def _write(
    args: argparse.Namespace,
    systems: AlignedStores,
    scores: NDArray[np.float64],
    map_stores: Sequence[Any],
    fuse: FuseMaps,
    settings: dict[str, Any],
    segments: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    inputs = [
        {
            "store": str(path),
            **{key: store.meta.get(key) for key in ("weights_sha256", "threshold", "config", "fusion")},
        }
        for path, store in zip(args.stores, systems.stores, strict=True)
    ]
    fusion = {"method": args.command, **settings, "inputs": inputs}
    meta = make_meta(fusion=fusion, max_pixels=systems.max_pixels)
    start = time.perf_counter()
    resized = write_fused_store(
        args.output,
        systems,
        scores,
        map_stores,
        fuse,
        meta=meta,
        segments=segments,
        overwrite=args.overwrite,
        workers=args.workers,
    )
    if resized:
        print(f"note: {resized} maps had another size than the first store's and were resized to it", file=sys.stderr)
    count, seconds = len(systems.ids), time.perf_counter() - start
    print(f"{args.output}: {count} images from {len(args.stores)} stores, {count / seconds:.0f} images/s")


def _search(args: argparse.Namespace) -> None:
    report_root = args.report_root or args.dataset_root
    tuned = _labeled(args, args.stores, args.dataset_root, args.split)
    reported = _labeled(args, args.report, report_root, args.report_split)
    check_disjoint(tuned, reported)  # before the work; `report_weights` insists on it in any case
    options = {"threshold": args.threshold, "workers": args.workers}
    result = search_weights(tuned, step=args.step, map_metric=args.map_metric, **options)
    report = report_weights(result, tuned, reported, **options)
    if result.map_weights is None:
        print("note: without maps and forgery masks on both sides only the scores' weights are found", file=sys.stderr)
    names = dict(zip(report, [*map(str, args.report), "equal weights", "searched weights"], strict=True))
    print(f"searched on {len(tuned)} images, reported on {len(reported)} others:")
    cells = [(names[key], *(_cell(value) for value in row.values())) for key, row in report.items()]
    columns = ("left", "right", "right", "right", "right")
    print(tabulate(cells, headers=("", "AUC", "F1 (M1)", "IoU (M1)", "final"), colalign=columns, disable_numparse=True))
    chosen = f"--weights {_words(result.weights)}"
    if result.map_weights is not None:
        chosen += f" --map-weights {_words(result.map_weights)}"
    print(f"ddl-d2 fuse average {_words(args.report)} {chosen} --output ...")
    if args.output is not None:
        write_metrics(args.output, _as_json(args, result, report, names))
        print(f"written to {args.output}")


def _labeled(args: argparse.Namespace, stores: Sequence[Path], root: Path, split: str | None) -> LabeledPredictions:
    systems = _opened(stores, args.intersection)
    video = VideoOptions(
        frames_per_video=args.frames_per_video, compression=args.compression, max_pixels=systems.max_pixels
    )
    rows, notes = load_dataset(root, split, fake_without_mask="score", video=video)
    if notes.origin:
        print(f"note: the dataset is listed {notes.origin}", file=sys.stderr)
    for line in notes.lines():
        print(f"note: {line}", file=sys.stderr)
    labeled = label_predictions(systems, rows, intersection=args.intersection)
    if len(labeled) < max(len(rows), len(labeled.systems.ids)):
        print(f"note: {len(labeled)} of the {len(rows)} images of {root} are predicted and used", file=sys.stderr)
    return labeled


def _as_json(
    args: argparse.Namespace, result: SearchResult, report: dict[str, dict[str, float]], names: dict[str, str]
) -> dict[str, Any]:
    tried = [{"weights": weights, "auc": auc} for weights, auc in zip(result.grid, result.auc.tolist(), strict=True)]
    if result.localization is not None:
        f1, iou = result.localization.f1.tolist(), result.localization.iou.tolist()
        tried = [{**row, "f1": f1[index], "iou": iou[index]} for index, row in enumerate(tried)]
    values = {
        names[key]: {metric: None if math.isnan(value) else value for metric, value in row.items()}
        for key, row in report.items()
    }
    return {
        "stores": [str(path) for path in args.stores],
        "report_stores": [str(path) for path in args.report],
        "threshold": args.threshold,
        "map_metric": args.map_metric,
        "weights": result.weights,
        "map_weights": result.map_weights,
        "tried": tried,
        "report": values,
    }


def _cell(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _words(values: Sequence[Any]) -> str:
    return " ".join(map(str, values))
