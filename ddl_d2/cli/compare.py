"""Compare systems by their saved predictions of one labeled dataset, with 95 % intervals and paired differences.

    ddl-d2 compare output/first output/second --dataset-root datasets/ddl_i --split valid --output comparison.md
    ddl-d2 compare output/first output/second --dataset-root datasets/ddl_i --groups people.csv --output comparison.json

Each store gets every metric of `ddl-d2 evaluate`; each further one its differences from the first; and all are broken
down by forgery type, forged area, size, and what --facts says of the images. What they mean: docs/metrics.md. The
output's suffix (.md, .csv, .json, .tex) says how it is written.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddl_d2.cli.common import cli_errors, count
from ddl_d2.cli.evaluate import add_measuring, dataset_of, evaluated
from ddl_d2.errors import EvaluationError, InputError
from ddl_d2.evaluation import ResultTable, compare_tables
from ddl_d2.evaluation.compared import SystemComparison
from ddl_d2.evaluation.comparison_report import check_output, comparison_file, comparison_text
from ddl_d2.evaluation.facts import read_facts
from ddl_d2.evaluation.groups import read_groups
from ddl_d2.io.atomic import write_whole
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.malloc import keep_freed_memory

FEWEST_RESAMPLES = 100
"""The ends of a 95 % interval are the 2.5th percentiles: fewer resamples do not have them."""


class ComparedStores(NamedTuple):
    """Stores, the dataset dicts that they were measured on, the result table of each, and their comparison."""

    stores: dict[str, PredictionStore]
    rows: Sequence[Mapping[str, Any]]
    tables: dict[str, ResultTable]
    comparison: SystemComparison


def resamples(text: str) -> int:
    """A number of resamples that gives percentiles."""
    value = int(text)
    if value < FEWEST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"must be {FEWEST_RESAMPLES} or more")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stores", nargs="+", type=Path, metavar="STORE", help="prediction stores; the others are compared to the first"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write it there: .md, .csv, .json or .tex")
    add_comparing(parser)
    add_measuring(parser)
    return parser


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what figures are broken down by, and how their intervals are found."""
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="image_id,group: images that belong together, such as of a person (default: videos, else images)",
    )
    parser.add_argument(
        "--facts",
        type=Path,
        metavar="CSV",
        help="image_id and columns such as source, faces, forgery_type: figures are broken down by each",
    )
    parser.add_argument(
        "--resamples", type=resamples, default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of the bootstrap (default: 0)")


@cli_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.dataset_root is None:
        parser.error("--dataset-root is needed: the images and forgery masks")
    if args.output is not None:
        check_output(args.output)
    found = compare_stores(args.stores, args).comparison
    print(comparison_text(found), end="")
    if args.output is not None:
        write_whole(args.output, comparison_file(found, args.output, {**settings_of(args), "seed": args.seed}))
        print(f"\nwritten to {args.output}")
    return 0


def system_names(stores: Sequence[Path]) -> dict[str, Path]:
    """Name each store by its folder, or by its path where folders share a name.

    Raises:
        InputError: a store is named twice.
    """
    if twice := [str(path) for path, times in Counter(path.resolve() for path in stores).items() if times > 1]:
        raise InputError(f"{twice[0]} is named twice: give each store once")
    shared = Counter(path.resolve().name for path in stores)
    return {path.resolve().name if shared[path.resolve().name] == 1 else str(path): path for path in stores}


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """How stores are measured, by the names that `compare_tables` has for it."""
    return {"threshold": args.threshold, "empty_score": args.empty_score, "video_score": args.video_score}


def compare_stores(paths: Sequence[Path], args: argparse.Namespace) -> ComparedStores:
    """Score stores against the dataset, which is loaded once, and compare them.

    Args:
        paths: of the stores.
        args: of the command line, as `add_comparing` and `add_measuring` have them.

    Raises:
        DdlError: a store, the dataset or a file cannot be used.
    """
    names = system_names(paths)
    groups = None if args.groups is None else read_groups(args.groups)
    facts = None if args.facts is None else read_facts(args.facts)
    keep_freed_memory()
    stores = {name: PredictionStore(path) for name, path in names.items()}
    rows = dataset_of(args, max_pixels=max(store.max_pixels for store in stores.values()))
    if not any(row.get("is_fake") is not None for row in rows):
        raise EvaluationError(f"{args.dataset_root}: no image has a label, so there is nothing to compare")
    if args.intersection:
        rows = [row for row in rows if all(row["image_id"] in store for store in stores.values())]
        if not rows:
            raise EvaluationError("nothing to compare: no image is in the dataset and in every store")
    tables = {name: evaluated(store, rows, args) for name, store in stores.items()}
    drawing = {"resamples": args.resamples, "seed": args.seed, "workers": args.workers}
    found = compare_tables(tables, groups=groups, facts=facts, **drawing, **settings_of(args))
    return ComparedStores(stores, rows, tables, found)


if __name__ == "__main__":
    raise SystemExit(main())
