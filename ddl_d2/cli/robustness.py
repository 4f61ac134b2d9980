"""Measure how weights fare on a labeled dataset under corruptions: fifteen kinds, five levels each.

    ddl-d2 robustness --weights weights/eyes_lite0.safetensors --dataset-root data/dfdc_pairs --split valid \
        --output output/robustness
    ddl-d2 robustness --dataset-root data/mine --corruptions jpeg messenger --levels 1 3 5 --output output/quick

Every image is predicted as `ddl-d2 predict` does, as it is and under each corruption; forgery masks follow what moves
pixels. AUC, F1, IoU, false alarms and calibration of each go to robustness.json, .csv, .md and .png in --output. A run
that was killed goes on where it ended when the command is given again. What the corruptions are: docs/metrics.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, count, positive, probability
from ddl_d2.cli.evaluate import add_dataset, dataset_of
from ddl_d2.data.subset import subset_of
from ddl_d2.data.transforms.corruptions import CORRUPTIONS, LEVELS
from ddl_d2.errors import InputError
from ddl_d2.inference.model import Model, load_model
from ddl_d2.inference.results_file import ResultsFile
from ddl_d2.io.atomic import write_whole
from ddl_d2.report.robustness import Condition, Found, conditions_of, measure_robustness
from ddl_d2.report.robustness_figure import robustness_figure
from ddl_d2.report.robustness_report import RobustnessReport, make_report, report_csv, report_json, report_text


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", metavar="FILE", help="trained weights, .safetensors or .pth (default: those that come with ddl_d2)"
    )
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for figures and results")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another run in --output")
    parser.add_argument(
        "--corruptions", nargs="+", default=(), choices=CORRUPTIONS, metavar="NAME", help=f"of {', '.join(CORRUPTIONS)}"
    )
    parser.add_argument(
        "--levels", nargs="+", type=int, default=LEVELS, choices=LEVELS, metavar="N", help="of 1 to 5 (default: all)"
    )
    parser.add_argument(
        "--max-images", type=count, default=0, metavar="N", help="a fixed part of the dataset; a run goes on with more"
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of what is drawn, such as noise")
    parser.add_argument(
        "--calibration", metavar="FILE", help="of `ddl-d2 calibrate`, or a name (default: what the weights carry)"
    )
    parser.add_argument(
        "--threshold", type=probability, help="a score above it is fake, uncalibrated (without a calibration: 0.5)"
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images at once (%(default)s)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="corrupting threads (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    add_dataset(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.dataset_root is None:
        parser.error("--dataset-root is needed: the images and forgery masks")
    conditions = conditions_of(args.corruptions, args.levels)
    model = load_model(
        args.weights,
        config=args.config,
        device=args.device,
        threshold=args.threshold,
        calibration=args.calibration,
        opts=args.opts,
    )
    rows = _labeled_rows(args, max_pixels=model.cfg.INPUT.MAX_PIXELS)
    settings = _settings(model, conditions, args)
    found: dict[Condition, list[Found]] = {one: [] for one in conditions}
    with ResultsFile(args.output, settings, overwrite=args.overwrite) as results:
        measured = measure_robustness(
            model, rows, conditions, results, seed=args.seed, batch_size=args.batch_size, workers=args.workers
        )
        for of_image in tqdm(measured, total=len(rows), unit="image", disable=None):
            for condition, one in of_image.items():
                found[condition].append(one)
    _write(make_report(found), {**settings, "num_images": len(rows)}, args)
    return 0


def _labeled_rows(args: argparse.Namespace, *, max_pixels: int) -> list[dict[str, Any]]:
    """The dataset's labeled images, or the part of them that --max-images says."""
    rows = [dict(row) for row in dataset_of(args, max_pixels=max_pixels) if row.get("is_fake") is not None]
    if not rows:
        raise InputError(f"{args.dataset_root}: no image has a label, so there is nothing to measure")
    chosen = subset_of(rows, np.array([row["is_fake"] for row in rows]), args.max_images)
    return rows if chosen is None else [rows[index] for index in chosen]


def _settings(model: Model, conditions: Sequence[Condition], args: argparse.Namespace) -> dict[str, Any]:
    """What the results of an image depend on: those of another run are not gone on with, but more images may be."""
    augment = model.cfg.INPUT.AUGMENT
    return {
        **model.describe(),
        "dataset": args.dataset_root.resolve().name,
        "split": args.split,
        "runs": [str(one) for one in conditions],
        "seed": args.seed,
        "trained_on": list(augment.DELIVERIES) if augment.DELIVERY_PROB > 0 else [],
    }


def _write(report: RobustnessReport, settings: dict[str, Any], args: argparse.Namespace) -> None:
    text = report_text(report)
    weights = Path(settings["weights"]).stem
    title = (
        f"{weights} on {settings['dataset']}{'/' + args.split if args.split else ''}, {settings['num_images']} images"
    )
    write_whole(args.output / "robustness.json", report_json(report, settings))
    write_whole(args.output / "robustness.csv", report_csv(report))
    write_whole(args.output / "robustness.md", report_text(report, "github"))
    write_whole(args.output / "robustness.png", robustness_figure(report, title=title))
    print(text, end="")
    print(f"\nwritten to {args.output / 'robustness.json'}, .csv, .md and .png", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
