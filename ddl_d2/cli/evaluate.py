"""Measure saved predictions against a dataset, without a model, and export the challenge's submission file.

    ddl-d2 evaluate --predictions output/store --dataset-root datasets/ddl_i --split valid
    ddl-d2 evaluate --predictions output/store --submission submission.zip
    ddl-d2 evaluate --baseline

The metrics go to metrics.json in the prediction store (or where --output says) and, as a table, to the screen. What
they mean: docs/metrics.md. Nothing is written unless everything could be read. --baseline derives published figures
again from the scores and pixel counts that come with ddl_d2, without weights or images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ddl_d2.cli.common import cli_errors, count, positive, threshold
from ddl_d2.config.renamed import current_value
from ddl_d2.data.datasets import VideoOptions, load_dataset
from ddl_d2.data.datasets.faceforensics import METHODS, is_faceforensics
from ddl_d2.errors import DatasetError, EvaluationError
from ddl_d2.evaluation import (
    ClipMetricOptions,
    ResultTable,
    clip_table_from_store,
    metrics_table,
    table_from_store,
    write_metrics,
)
from ddl_d2.evaluation.baseline import baseline_text, list_baselines, load_baseline
from ddl_d2.evaluation.functional import EMPTY_SCORES, VIDEO_SCORES
from ddl_d2.evaluation.functional.temporal import AP_CURVES
from ddl_d2.io.atomic import write_whole
from ddl_d2.predictions.clip_submission import SEPARATORS, export_clip_submission
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.submission import export_submission
from ddl_d2.utils.malloc import keep_freed_memory


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, metavar="STORE", help="prediction store (a folder)")
    source.add_argument(
        "--baseline",
        nargs="*",
        metavar="NAME",
        help=f"derive published figures again: of {', '.join(list_baselines())}, or of a file (default: all)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: metrics.json in STORE")
    parser.add_argument(
        "--save-baseline", type=Path, metavar="FILE", help="also write scores and pixel counts, without any names"
    )
    parser.add_argument("--submission", type=Path, metavar="ZIP", help="also export the predictions for the challenge")
    add_measuring(parser)
    clips = parser.add_argument_group("clips")
    clips.add_argument("--ap", nargs="+", type=float, default=[0.5, 0.75, 0.9, 0.95], help="overlaps of AP")
    clips.add_argument("--ar", nargs="+", type=positive, default=[100, 50, 30, 20, 10, 5], help="numbers of AR")
    clips.add_argument(
        "--ap-curve", choices=AP_CURVES, default="full", help="published: as LAV-DF's metrics (default: full)"
    )
    clips.add_argument(
        "--challenge", choices=SEPARATORS, default="ddl_av", help="whose rules --submission keeps (default: ddl_av)"
    )
    return parser


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what stores are measured on, and how."""
    add_dataset(parser)
    parser.add_argument("--threshold", type=threshold, default=0.5, help="forged, or fake, above it (default: 0.5)")
    parser.add_argument(
        "--empty-score",
        choices=EMPTY_SCORES,
        default="skip",
        help="F1 and IoU of a fake with an empty mask when nothing was predicted (default: skip the image)",
    )
    parser.add_argument(
        "--video-score",
        type=lambda value: current_value("TEST.VIDEO_SCORE", value),
        choices=VIDEO_SCORES,
        default="mean",
        help="a video's score from its frames': mean, mean of the highest tenth, or max (default: mean)",
    )
    parser.add_argument(
        "--intersection",
        action="store_true",
        help="evaluate the images that both sides have; default: refuse when they differ",
    )
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="reading threads (default: 2)")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a dataset and say how it is listed; `dataset_of` loads it."""
    parser.add_argument("--dataset-root", type=Path, metavar="ROOT", help="the images and forgery masks")
    parser.add_argument("--split", help="part of the dataset, such as valid; default: all of it")
    parser.add_argument(
        "--frames-per-video", type=count, default=32, metavar="N", help="as predicted; 0 = all (default: 32)"
    )
    parser.add_argument("--compression", default="c23", metavar="LEVEL", help="of FaceForensics++ (default: c23)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=(),
        choices=METHODS,
        metavar="METHOD",
        help=f"of FaceForensics++, as predicted: {', '.join(METHODS)} (default: all that are there)",
    )
    parser.add_argument(
        "--fake-without-mask",
        choices=("score", "skip", "full", "error"),
        default="score",
        help="a fake without a forgery mask: detection only, left out, wholly forged, refused (default: score)",
    )


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.baseline is not None:
        return derive_again(args.baseline or list_baselines())
    if args.dataset_root is None and args.submission is None:
        parser.error("--dataset-root is needed to compute metrics, or --submission to export without")
    if args.dataset_root is None and (args.output or args.split or args.intersection or args.save_baseline):
        parser.error("--output, --split, --intersection and --save-baseline need --dataset-root")
    keep_freed_memory()  # each map and mask would start in new pages of the system's, which cost more than decoding it
    store = PredictionStore(args.predictions)
    if store.has_segments:
        return _clips(store, args)
    table = None
    if args.dataset_root is not None:
        table = evaluated(store, dataset_of(args, max_pixels=store.max_pixels), args)
    metrics = None
    if table is not None and any(row.is_fake is not None for row in table):
        metrics = table.metrics(threshold=args.threshold, empty_score=args.empty_score, video_score=args.video_score)
    elif args.submission is None:
        raise EvaluationError(f"{args.dataset_root}: no image has a label, so there is nothing to measure")

    if args.submission is not None:
        count = export_submission(store, args.submission, threshold=args.threshold)
        print(f"{args.submission}: {count} images")
    if metrics is not None:
        output = args.output or args.predictions / "metrics.json"
        settings: dict[str, Any] = {"threshold": args.threshold, "empty_score": args.empty_score}
        if "num_videos" in metrics:
            settings["video_score"] = args.video_score
        write_metrics(output, {**metrics, **settings})
        if table is not None and args.save_baseline is not None:
            about = {"dataset": args.dataset_root.resolve().name, "split": args.split}
            about |= {key: store.meta.get(key) for key in ("weights_sha256", "tensors_sha256", "versions")}
            write_whole(args.save_baseline, baseline_text(table, about, threshold=args.threshold))
        print(metrics_table(metrics))
        print(f"written to {output}")
    return 0


def _clips(store: PredictionStore, args: argparse.Namespace) -> int:
    """Measure a store of clips, and export it."""
    if args.submission is not None:
        count = export_clip_submission(store, args.submission, challenge=args.challenge)
        print(f"{args.submission}: {count} clips")
    if args.dataset_root is None:
        return 0
    rows = dataset_of(args, max_pixels=store.max_pixels)
    table = clip_table_from_store(store, rows, intersection=args.intersection)
    metrics = table.metrics(ClipMetricOptions(overlaps=args.ap, numbers=args.ar, curve=args.ap_curve))
    output = args.output or args.predictions / "metrics.json"
    write_metrics(output, {**metrics, "ap_curve": args.ap_curve})
    print(metrics_table(metrics))
    print(f"written to {output}")
    return 0


def derive_again(names: Sequence[str]) -> int:
    """Compute the metrics of baselines, and print them beside what was published; returns 1 if any is unlike."""
    lines, unlike = [], 0
    for name in names:
        baseline = load_baseline(name)
        metrics = baseline.table.metrics(threshold=baseline.about["threshold"])
        differing = baseline.differences(metrics)
        unlike += bool(differing)
        for key, (published, derived) in differing.items():
            print(f"{baseline.name}: {key} is {derived}, published was {published}", file=sys.stderr)
        shown = [f"{metrics[key]:.4f}" if key in baseline.published else "" for key in ("auc", "f1", "iou", "accuracy")]
        counted = f"{metrics['num_fake']} + {metrics['num_real']}"
        lines.append([baseline.name, counted, *shown, "unlike" if differing else "as published"])
    headers = ("baseline", "fake + real", "AUC", "F1 (M1)", "IoU (M1)", "accuracy", "")
    print(tabulate(lines, headers=headers, disable_numparse=True))
    return 1 if unlike else 0


def dataset_of(args: argparse.Namespace, *, max_pixels: int) -> Sequence[Mapping[str, Any]]:
    """Load the dataset that the options of `add_dataset` name, and print notes about it.

    Args:
        args: of the command line.
        max_pixels: of a frame of a video.

    Raises:
        DatasetError: it cannot be used.
    """
    if args.methods and not is_faceforensics(args.dataset_root):
        raise DatasetError(f"{args.dataset_root}: --methods are FaceForensics++'s, which this is not")
    rows, report = load_dataset(
        args.dataset_root,
        args.split,
        fake_without_mask=args.fake_without_mask,
        video=VideoOptions(
            frames_per_video=args.frames_per_video,
            compression=args.compression,
            methods=tuple(args.methods),
            max_pixels=max_pixels,
        ),
    )
    if report.origin:
        print(f"note: the dataset is listed {report.origin}", file=sys.stderr)
    for line in report.lines():
        print(f"note: {line}", file=sys.stderr)
    return rows


def evaluated(store: PredictionStore, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> ResultTable:
    """Score a store against a dataset, and print what is left out.

    Args:
        store: the predictions.
        rows: dataset dicts.
        args: of the command line, as `add_measuring` has them.

    Raises:
        EvaluationError: as `table_from_store`.
    """
    table = table_from_store(
        store, rows, threshold=args.threshold, intersection=args.intersection, workers=args.workers
    )
    if len(table) < max(len(rows), len(store)):
        print(
            f"only {len(table)} images are on both sides: {len(rows) - len(table)} of the dataset's and "
            f"{len(store) - len(table)} of the predictions are left out",
            file=sys.stderr,
        )
    return table
