"""List what `ddl-d2 predict --output` has found in the order in which people should look at it.

    ddl-d2 predict folder/ --output results
    ddl-d2 review results

What is inconclusive comes first, then what has no face or could not be read, then the rest, the least certain first.
Writes review.csv and review.html (with a filter, for the keyboard, leading to the overlays) into the folder, and
prints the first of the list. It may be called while predict still runs: it lists what there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ddl_d2.cli.common import cli_errors, count
from ddl_d2.inference.summary import score_text
from ddl_d2.io.atomic import write_whole
from ddl_d2.report.review import read_results, review_csv, review_page, review_rows
from ddl_d2.utils.text import printable


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of predict")
    parser.add_argument("--show", type=count, default=20, metavar="N", help="lines to print (%(default)s)")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Write the list; returns the exit code."""
    args = build_parser().parse_args(argv)
    rows = read_results(args.folder)
    write_whole(args.folder / "review.csv", review_csv(rows))
    write_whole(args.folder / "review.html", review_page(rows))
    for row in review_rows(rows)[: args.show]:
        ratio = "" if row["log10_lr"] is None else f"  log10 LR {row['log10_lr']:+.2f}"
        print(f"{row['place']:4}  {score_text(row['score'])}{ratio}  {row['verdict']}  {printable(row['file'])}")
    print(f"{len(rows)} files; the list is in {printable(args.folder / 'review.csv')} and review.html")
    return 0
