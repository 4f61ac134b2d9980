"""Write one HTML file about saved predictions, or about files that were predicted; it needs nothing from outside.

    ddl-d2 report STORE --dataset-root datasets/ddl_i --split valid --output report.html
    ddl-d2 report STORE OTHER_STORE --dataset-root ROOT --robustness robustness.json --output report.html --pdf
    ddl-d2 predict folder/ --output results
    ddl-d2 report results --output report.html

Of stores: the operating point in words, every figure of `ddl-d2 compare` with its interval, curves, the calibration,
and galleries of the best and worst images, false alarms and misses. Of a folder of `ddl-d2 predict`: what was found of
each file. --pdf prints the file with Chromium, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ddl_d2.checkpoint.shipped import find_calibration
from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.cli.compare import add_comparing, compare_stores, settings_of
from ddl_d2.cli.evaluate import add_measuring
from ddl_d2.errors import InputError
from ddl_d2.inference.images import RESULTS_NAME
from ddl_d2.io.atomic import write_whole
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.layout import CALIBRATION, PREDICTIONS
from ddl_d2.predictions.meta import read_meta
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.report.calibrating import settings_of as settings_of_scores
from ddl_d2.report.dataset_page import DatasetReport, dataset_page
from ddl_d2.report.judged import Judged
from ddl_d2.report.pdf import find_browser, print_pdf
from ddl_d2.report.results_page import results_page
from ddl_d2.report.robustness_report import read_report


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE", help="prediction stores, or a folder of `ddl-d2 predict`"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="HTML", help="the file to write")
    parser.add_argument("--pdf", action="store_true", help="also print it, beside --output, with the suffix .pdf")
    parser.add_argument("--title", help="of the report (default: what it is about)")
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help=f"of `ddl-d2 calibrate`, or a name, for a single store (default: {CALIBRATION} in a store that has one)",
    )
    parser.add_argument(
        "--robustness", type=Path, metavar="JSON", help="robustness.json of `ddl-d2 robustness`, to be shown, too"
    )
    parser.add_argument("--images", type=positive, default=12, metavar="N", help="in a gallery (default: 12)")
    add_comparing(parser)
    add_measuring(parser)
    return parser


@cli_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.output.suffix not in (".html", ".htm"):
        parser.error(f"--output {args.output}: the report is an HTML file; its name ends in .html")
    if args.pdf:
        find_browser()
    predicted = [path for path in args.stores if (path / RESULTS_NAME).is_file() and not (path / PREDICTIONS).exists()]
    if predicted:
        page = _about_files(args, parser)
    else:
        if args.dataset_root is None:
            parser.error("--dataset-root is needed: the images and their labels")
        page = dataset_page(_about_stores(args))
    write_whole(args.output, page)
    print(f"written to {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)")
    if args.pdf:
        output = args.output.with_suffix(".pdf")
        print_pdf(args.output, output)
        print(f"printed to {output}")
    return 0


def _about_files(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The page of a folder of `ddl-d2 predict`."""
    if len(args.stores) > 1:
        parser.error("a folder of `ddl-d2 predict` has a report of its own: name it alone")
    if args.dataset_root or args.calibration or args.robustness:
        parser.error("--dataset-root, --calibration and --robustness belong to prediction stores, not to this folder")
    folder = args.stores[0]
    return results_page(
        folder, title=args.title or f"Report on the files in {folder.resolve().name}", number=args.images
    )


def _about_stores(args: argparse.Namespace) -> DatasetReport:
    """Measure the stores, and gather what their page shows."""
    _refuse_clips(args.stores)
    if args.calibration is not None and len(args.stores) > 1:
        raise InputError("--calibration is of one model: give one store, or put a calibration.json into each")
    robustness = None if args.robustness is None else read_report(args.robustness)
    found = compare_stores(args.stores, args)
    systems = [
        Judged(name, store, found.tables[name].distinct(), _calibration(store, args.calibration), args.threshold)
        for name, store in found.stores.items()
    ]
    dataset = " ".join(filter(None, (args.dataset_root.resolve().name, args.split)))
    settings = settings_of(args)
    if "num_videos" not in next(iter(found.comparison.counts.values())):
        del settings["video_score"]
    return DatasetReport(
        title=args.title or f"Report: {', '.join(found.stores)} on {dataset}",
        dataset=dataset,
        systems=systems,
        comparison=found.comparison,
        rows={row["image_id"]: row for row in found.rows},
        settings=settings,
        robustness=robustness,
        number=args.images,
    )


def _refuse_clips(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir() and (path / PREDICTIONS).is_file() and read_meta(path).get("has_segments"):
            raise InputError(f"{path}: is about clips, of which there is no report; `ddl-d2 evaluate` measures them")


def _calibration(store: PredictionStore, name: str | None) -> Calibration | None:
    """The calibration that is named, or else the one in the store; CalibrationError if it is of another model."""
    inside = store.root / CALIBRATION
    if name is None and not inside.is_file():
        return None
    made = Calibration.load(inside if name is None else find_calibration(name))
    made.check_model(weights_sha256=store.meta.get("weights_sha256") or "", settings=settings_of_scores(store))
    return made


if __name__ == "__main__":
    sys.exit(main())
