#!/usr/bin/env python3
"""What finding forged seconds is worth by chance: segments that know nothing of the forgeries, beside a system's.

    python benchmarks/benchmark_chance.py --dataset-root data/clips --split valid --predictions output/store

Rows: "random", segments of any start and any length that the training split has, each with a random confidence;
"usual length", all segments of the training split's median length, likewise; "loudness", runs of frames whose sound is
louder than the clip's median, the louder the surer, for where people speak is where sound gets forged; and, with
--predictions, what a system found. Figures with draws in them are means over --draws, with their standard deviation.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ddl_d2.data.datasets import load_dataset
from ddl_d2.evaluation import ClipMetricOptions, ClipTable, clip_table_from_store
from ddl_d2.evaluation.functional import UndefinedMetricWarning
from ddl_d2.evaluation.temporal_evaluator import clip_result
from ddl_d2.io.atomic import write_json
from ddl_d2.io.clip import FPS, Clip, read_clip
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.segments import soft_nms

NMS = {"alpha": 0.7234, "t1": 0.1968, "t2": 0.4123, "limit": 100}
METRICS = ("AP@0.5", "AP@0.75", "AR@20", "AR@10", "AUC")
Row = Mapping[str, Any]
Find = Callable[[Clip, np.random.Generator], np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset-root", required=True, type=Path, metavar="ROOT", help="a dataset of clips with forged seconds")
    add("--split", default="valid", help="what is measured (default valid)")
    add("--predictions", nargs="*", type=Path, default=[], metavar="STORE", help="what systems found there")
    add("--draws", type=int, default=20, help="of what is random (default 20)")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    rows, _ = load_dataset(arguments.dataset_root, arguments.split, fake_without_mask="score")
    lengths = known_lengths(arguments.dataset_root)
    clips = [read_clip(row["file_name"]) for row in rows]
    found = {
        name: spread([measured(rows, clips, find, seed) for seed in range(draws)])
        for name, find, draws in (
            ("random", random_segments(lengths), arguments.draws),
            ("usual length", usual_segments(float(np.median(lengths))), arguments.draws),
            ("loudness", loud_segments, 1),
        )
    }
    for store in arguments.predictions:
        found[str(store)] = spread([metrics_of(clip_table_from_store(PredictionStore(store), rows))])
    cells = [[name, *(_cell(*values.get(key, (np.nan, 0.0))) for key in METRICS)] for name, values in found.items()]
    print(f"{len(rows)} clips of {arguments.dataset_root}, {arguments.split}:")
    print(tabulate(cells, headers=("", *METRICS), disable_numparse=True))
    if arguments.json:
        write_json(arguments.json, {name: {k: v[0] for k, v in row.items()} for name, row in found.items()})
    return 0


def known_lengths(root: Path) -> np.ndarray:
    """Return the lengths of all forged segments of the training split, seconds."""
    rows, _ = load_dataset(root, "train", fake_without_mask="score")
    return np.array([end - start for row in rows for start, end in row.get("segments", ())])


def random_segments(lengths: np.ndarray) -> Find:
    """Find 100 segments anywhere, as long as forged ones may be."""

    def find(clip: Clip, rng: np.random.Generator) -> np.ndarray:
        length = np.minimum(rng.uniform(lengths.min(), lengths.max(), 100), clip.duration)
        start = rng.uniform(0, clip.duration - length)
        return np.column_stack([rng.uniform(size=100), start, start + length])

    return find


def usual_segments(length: float) -> Find:
    """Find a segment of one length at every frame."""

    def find(clip: Clip, rng: np.random.Generator) -> np.ndarray:
        start = np.arange(max(round((clip.duration - length) * FPS), 0) + 1) / FPS
        return np.column_stack([rng.uniform(size=len(start)), start, np.minimum(start + length, clip.duration)])

    return find


def loud_segments(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """Find the runs of frames that are louder than the median of their clip."""
    frames = len(clip.frames)
    parts = np.array_split(clip.audio[: round(clip.duration * clip.audio_rate)], frames)
    level = np.array([np.sqrt(np.mean(part**2)) if len(part) else 0.0 for part in parts])
    edges = np.diff(np.concatenate([[0], (level > np.median(level)).astype(int), [0]]))
    runs = list(zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True))
    found = [[level[first:last].mean(), first / clip.fps, last / clip.fps] for first, last in runs]
    return np.array(found, dtype=np.float64).reshape(-1, 3).clip([0, 0, 0], [1, np.inf, np.inf])


def measured(rows: Sequence[Row], clips: Sequence[Clip], find: Find, seed: int) -> dict[str, float]:
    """Return the metrics of what `find` finds; a clip's score is that of its best segment."""
    rng = np.random.default_rng(seed)
    table = ClipTable()
    for row, clip in zip(rows, clips, strict=True):
        segments = soft_nms(find(clip, rng), **NMS)
        score = float(segments[0, 0]) if len(segments) else 0.0
        table.add(clip_result(row, score, segments.astype(np.float32)))
    return metrics_of(table)


def metrics_of(table: ClipTable) -> dict[str, float]:
    """Return all metrics of a table of clips."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return table.metrics(ClipMetricOptions(overlaps=[0.5, 0.75, 0.9, 0.95], numbers=[50, 30, 20, 10, 5]))


def spread(draws: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Return {metric: (mean, standard deviation)} over draws."""
    return {key: (float(np.mean([d[key] for d in draws])), float(np.std([d[key] for d in draws]))) for key in draws[0]}


def _cell(mean: float, deviation: float) -> str:
    return f"{mean:.3f} ± {deviation:.3f}" if deviation else f"{mean:.3f}"


if __name__ == "__main__":
    sys.exit(main())
