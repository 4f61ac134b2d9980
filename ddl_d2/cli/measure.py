"""Measure weights on images they never saw, with 95 % intervals: the figures of a model card.

    ddl-d2 measure --weights weights/eyes_lite0.safetensors --output figures.md \
        --labeled dfdc=data/dfdc_pairs/valid --labeled casia=data/casia_faces/valid \
        --real portraits=datasets/free_portraits/officials/valid --real groups=data/groups

Predicts every image as `ddl-d2 predict` does. A labeled dataset gives AUC, F1 of the forged pixels over the fakes that
have a mask, and the share of fakes and of reals called fake; a real one gives its false alarms. A name that is given
several times is one dataset. With --longest and --jpeg images are measured as they look after having been that small
or compressed that much.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, positive, probability
from ddl_d2.data.datasets import load_dataset
from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import InputError
from ddl_d2.evaluation.functional import pixel_counts
from ddl_d2.evaluation.functional.intervals import auc_interval, mean_interval, share_interval
from ddl_d2.forging.codecs import jpeg
from ddl_d2.inference.images import expand_inputs
from ddl_d2.inference.model import Model, load_model
from ddl_d2.inference.sources import PredictsSources
from ddl_d2.inference.summary import NO_FACE
from ddl_d2.io.image import read_image

Figure = tuple[float, float, float]
Changed = Callable[[str | Path], np.ndarray]


class Scored(NamedTuple):
    """What was measured on one image.

    Attributes:
        is_fake: 0 or 1.
        score: P(fake); where a model of faces found none, that of the whole image, which AUC ranks all the same.
        verdict: "fake", "real" or "no face found".
        f1: of the forged pixels; NaN where there is no mask, or nothing is forged.
    """

    is_fake: int
    score: float
    verdict: str
    f1: float


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, metavar="FILE", help="trained weights")
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument("--labeled", action="append", default=[], metavar="NAME=ROOT", help="real and fake images")
    parser.add_argument("--real", action="append", default=[], metavar="NAME=DIR", help="real images, any layout")
    parser.add_argument("--threshold", type=probability, default=0.5, help="a score above it is fake (%(default)s)")
    parser.add_argument(
        "--longest", type=positive, metavar="N", help="shrink images to N pixels and enlarge them again"
    )
    parser.add_argument("--jpeg", type=positive, metavar="Q", help="compress images as JPEG of quality Q, 1 to 100")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too, and FILE.json")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    args = build_parser().parse_args(argv)
    if not args.labeled and not args.real:
        raise InputError("nothing to measure on: give --labeled or --real")
    model = load_model(args.weights, config=args.config, threshold=args.threshold, opts=args.opts)
    changed = partial(degraded, longest=args.longest, quality=args.jpeg)
    found: dict[str, list[Scored]] = {}
    for entry in args.labeled:
        name, root = _named(entry)
        found.setdefault(name, []).extend(labeled_scores(model, root, changed))
    for entry in args.real:
        name, root = _named(entry)
        found.setdefault(name, []).extend(_real(model, root, changed))
    figures = {name: figures_of(scored) for name, scored in found.items()}
    table = as_table(figures)
    print(table)
    if args.output is not None:
        args.output.write_text(table + "\n", encoding="utf-8")
        args.output.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _named(entry: str) -> tuple[str, Path]:
    name, _, root = entry.partition("=")
    if not name or not Path(root).exists() or not root:
        raise InputError(f"{entry}: must be NAME=PATH of a folder that exists")
    return name, Path(root)


def degraded(path: str | Path, *, longest: int | None, quality: int | None) -> np.ndarray:
    """An image, uint8 H×W×3 RGB, as it looks after having been small and compressed; its size stays.

    Raises:
        ImageReadError: it cannot be read.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    if longest is not None and longest < max(height, width):
        ratio = longest / max(height, width)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if quality is not None:
        image = jpeg(image, quality=quality)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def labeled_scores(model: PredictsSources, root: Path, changed: Changed) -> Iterator[Scored]:
    """Measure each image of a labeled dataset.

    Args:
        model: predicts.
        root: the dataset's folder.
        changed: reads an image by its path.
    """
    rows, _ = load_dataset(root, fake_without_mask="score")
    chosen = [row for row in rows if row.get("is_fake") in (0, 1)]
    results = model.predict_many(changed(row["file_name"]) for row in chosen)
    for row, result in tqdm(zip(chosen, results, strict=True), total=len(chosen), desc=root.name, disable=None):
        if result.error is not None:
            raise result.error
        truth = read_forgery_mask(row, *result.forgery_map.shape) if row["is_fake"] else None
        f1 = np.nan if truth is None else _f1(result.forgery_map > model.map_threshold, truth.mask)
        yield Scored(int(row["is_fake"]), result.fake_score, result.verdict, f1)


def _real(model: Model, root: Path, changed: Changed) -> Iterator[Scored]:
    paths = expand_inputs([str(root)]).images
    for result in tqdm(model.predict_many(map(changed, paths)), total=len(paths), desc=root.name, disable=None):
        if result.error is not None:
            raise result.error
        yield Scored(0, result.fake_score, result.verdict, np.nan)


def _f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    hits, false, missed, _ = pixel_counts(predicted, truth)
    return 2 * hits / (2 * hits + false + missed) if hits + false + missed else np.nan


def figures_of(scored: Sequence[Scored]) -> dict[str, Figure | int]:
    """The figures of one dataset: each (value, lower, upper limit of 95 %), and the numbers of images."""
    labels = np.array([one.is_fake for one in scored])
    scores = np.array([one.score for one in scored])
    called = np.array([one.verdict == "fake" for one in scored])
    fakes, reals = int(labels.sum()), int((1 - labels).sum())
    faceless = sum(one.verdict == NO_FACE for one in scored)
    figures: dict[str, Figure | int] = {"fakes": fakes, "reals": reals, "no_face": faceless}
    if fakes and reals:
        figures["auc"] = auc_interval(labels, scores)
    f1 = [one.f1 for one in scored if one.is_fake]
    if not np.isnan(f1).all():
        figures["f1"] = mean_interval(f1)
    if fakes:
        figures["found"] = share_interval(int(called[labels == 1].sum()), fakes)
    if reals:
        figures["false_alarms"] = share_interval(int(called[labels == 0].sum()), reals)
    return figures


def as_table(figures: dict[str, dict[str, Figure | int]]) -> str:
    """The figures as a Markdown table."""
    columns = ("auc", "f1", "found", "false_alarms")
    head = "| dataset | fake + real | no face found | AUC | F1 of the map | fakes called fake | reals called fake |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name, values in figures.items():
        shown = [_shown(values.get(column), percent=column in ("found", "false_alarms")) for column in columns]
        lines.append(f"| {name} | {values['fakes']} + {values['reals']} | {values['no_face']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(figure: Figure | int | None, *, percent: bool) -> str:
    if not isinstance(figure, tuple):
        return ""
    value, low, high = figure
    if percent:
        return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
