"""Examine images and clips, and leave for each a record that can be repeated.

    ddl-d2 examine photo.jpg --output case_17
    ddl-d2 examine photo.jpg clip.mp4 --output case_17 --examiner "A. Example" --key case_17.key

Each file gets a record (JSON) and the same as a page (HTML), and a line in chain.jsonl, which a later call adds to. It
prints the head of the chain last: whoever keeps that elsewhere can show that no record was changed, added or taken
away. `ddl-d2 replay` checks the chain and repeats an examination.

Exit code 0: all went well; 1: some files could not be read; 2: nothing could be done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, count, positive, probability
from ddl_d2.errors import ImageReadError
from ddl_d2.inference.images import expand_inputs
from ddl_d2.inference.model import load_model
from ddl_d2.report.chain import Chain, read_key
from ddl_d2.report.detector_findings import verdict_of
from ddl_d2.report.examination import Examiner
from ddl_d2.report.record_page import add_record
from ddl_d2.report.words import headline
from ddl_d2.utils.text import printable


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, videos, folders and globs")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the records")
    parser.add_argument(
        "--weights", metavar="FILE", help="trained weights, .safetensors or .pth (default: those that come with ddl_d2)"
    )
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument(
        "--calibration", metavar="FILE", help="of `ddl-d2 calibrate` (default: the one that the weights carry, if any)"
    )
    parser.add_argument(
        "--threshold",
        type=probability,
        help="a score above it is fake, uncalibrated (without a calibration: 0.5)",
    )
    parser.add_argument(
        "--frames", type=count, default=32, metavar="N", help="evenly spaced frames of a video; 0 = all (%(default)s)"
    )
    parser.add_argument("--fragility", action="store_true", help="also examine images as twelve deliveries leave them")
    parser.add_argument("--key", type=Path, metavar="FILE", help="key for the HMAC of each line of the chain")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="PEM file of trust anchors for content credentials")
    parser.add_argument("--examiner", default="", metavar="NAME", help="who examines, for the record")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (%(default)s: repeats to the byte)")
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="of the computation; a repetition has as many (1)"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Examine files; returns the exit code."""
    args = build_parser().parse_args(argv)
    inputs = expand_inputs(args.paths)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    chain = Chain.open(args.output, None if args.key is None else read_key(args.key))
    examiner = Examiner(
        load_model(
            args.weights,
            config=args.config,
            device=args.device,
            threshold=args.threshold,
            calibration=args.calibration,
            opts=args.opts,
        ),
        frames=args.frames,
        name=args.examiner,
        trust=args.trust,
        fragility=args.fragility,
    )
    failed = 0
    sources = [*inputs.images, *inputs.videos]
    for path in tqdm(sources, unit="file", disable=None if len(sources) > 1 else True):
        try:
            examination = examiner.examine(path)
        except ImageReadError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            failed += 1
            continue
        record = add_record(chain, examination, path)
        print(f"{headline(verdict_of(examination.record['findings']))}  {printable(path)}  {printable(record)}")
    if note := inputs.note():
        print(f"note: {note}", file=sys.stderr)
    print(f"head of the chain, to be kept elsewhere: {chain.head}", file=sys.stderr)
    return 0 if not failed else 1 if failed < len(sources) else 2
