"""Check and score answers of the DDL-X challenge, as far as a machine can.

    ddl-d2 predict images/ --weights model.safetensors --explain --ddl-x answers
    ddl-d2 ddl-x answers
    ddl-d2 ddl-x answers --dataset-root datasets/ddl_i --split valid

Without a dataset it says what is wrong with the form of each answer. With one it also prints the accuracy, the IoU of
the boxes, and the challenge's score without what needs a language model. What they mean: docs/metrics.md.

Exit code 0: all answers are well formed; 1: some are not; 2: nothing could be done.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ddl_d2.cli.common import cli_errors
from ddl_d2.cli.evaluate import add_dataset, dataset_of
from ddl_d2.evaluation.ddl_x import evaluate_answers, validate_answers
from ddl_d2.io.atomic import write_json
from ddl_d2.utils.limits import MAX_PIXELS


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, metavar="DIR", help="a folder of answers, <image's name>.json")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    add_dataset(parser)
    return parser


@cli_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(arguments)
    faults = validate_answers(args.answers)
    for name, found in faults.items():
        print(f"{name}: {'; '.join(found)}")
    total = len(list(args.answers.glob("*.json")))
    print(f"{total - len(faults)} of {total} answers are well formed")
    if args.dataset_root is not None:
        figures = evaluate_answers(args.answers, dataset_of(args, max_pixels=MAX_PIXELS))
        print(json.dumps(figures, indent=2))
        if args.output is not None:
            write_json(args.output, figures)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
