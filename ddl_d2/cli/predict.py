"""Say of images whether they are real or forged, and which pixels were forged.

    ddl-d2 predict photo.jpg --weights model.safetensors
    ddl-d2 predict folder/ "more/*.png" --weights model.safetensors --output results
    ddl-d2 predict folder/ --weights model.safetensors --jsonl > results.jsonl

Prints a line per image: P(fake), the verdict, the forged share of the pixels, the file. With --output, an overlay of
each image and results.jsonl go into a folder; a second call with the same folder goes on where the first ended.

Exit code 0: all went well; 1: some images could not be read; 2: nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, positive, probability
from ddl_d2.errors import InputError
from ddl_d2.inference.images import expand_inputs, output_names, printable
from ddl_d2.inference.model import Model, load_model
from ddl_d2.inference.results_file import RESULTS_NAME, ResultsFile

Row = dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders and globs")
    parser.add_argument("--weights", metavar="FILE", help="trained weights, .safetensors or .pth")
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for overlays and results.jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another model in --output")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON list at the end instead of a table")
    form.add_argument("--jsonl", action="store_true", help="print a line of JSON per image, as soon as it is done")
    parser.add_argument("--threshold", type=probability, default=0.5, help="a score above it is fake (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images at once (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Predict the images; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.weights is None:
        raise InputError("--weights is missing: no weights come with ddl_d2 yet, so train some (see docs/model_zoo.md)")
    paths = _without_own_outputs(expand_inputs(args.paths), args.output)
    model = load_model(args.weights, config=args.config, device=args.device, threshold=args.threshold, opts=args.opts)
    rows = []
    say = _printer(args)
    for row in tqdm(_results(model, paths, args), total=len(paths), unit="image", disable=None):
        say(row)
        rows.append(row)
    failed = sum("error" in row for row in rows)
    if args.json:
        print(json.dumps(rows, indent=2))
    fakes = sum(row.get("verdict") == "fake" for row in rows)
    print(f"{len(rows)} images: {fakes} fake, {len(rows) - fakes - failed} real, {failed} failed", file=sys.stderr)
    return 0 if not failed else 1 if failed < len(rows) else 2


def _without_own_outputs(paths: Sequence[Path], output: Path | None) -> list[Path]:
    """Leave out the overlays of an earlier call, if the folder of results lies among the images."""
    if output is None or not (output / RESULTS_NAME).is_file():
        return list(paths)
    own = output.resolve()
    kept = [path for path in paths if own not in path.resolve().parents]
    if not kept:
        raise InputError(f"{output}: all images lie in the folder of results; name another folder with --output")
    return kept


def _results(model: Model, paths: Sequence[Path], args: argparse.Namespace) -> Iterator[Row]:
    """A row per image, in order; with --output, also on disk."""
    if args.output is None:
        yield from (result.to_dict() for result in model.predict_many(paths, batch_size=args.batch_size))
        return
    overlays = {path: args.output / f"{name}.png" for path, name in zip(paths, output_names(paths), strict=True)}
    own = {path.resolve() for path in paths}
    if bad := next((overlay for overlay in overlays.values() if overlay.resolve() in own), None):
        raise InputError(f"{bad}: the overlay would replace an image that is to be read; choose another folder")
    with ResultsFile(args.output, model.describe(), overwrite=args.overwrite) as results:
        known = {path: results.known(path) for path in paths}
        fresh = model.predict_many([path for path in paths if known[path] is None], batch_size=args.batch_size)
        for path in paths:
            row = known[path]
            if row is None:
                result = next(fresh)
                said = result.to_dict()
                if result.error is None:
                    result.save_overlay(overlays[path])
                    said["overlay"] = printable(overlays[path].name)
                row = results.add(path, said)
            yield row


def _printer(args: argparse.Namespace) -> Callable[[Row], None]:
    """What is printed of a row as soon as it is there."""
    if args.json:
        return lambda row: None
    if args.jsonl:
        return lambda row: print(json.dumps(row), flush=True)
    return _print_line


def _print_line(row: Row) -> None:
    if "error" in row:
        print(f"error: {row['file']}: {row['error']}", file=sys.stderr)
        return
    with tqdm.external_write_mode() if sys.stdout.isatty() else nullcontext():
        print(f"{row['score']:.4f}  {row['verdict']}  {100 * row['forged_share']:5.1f} % forged  {row['file']}")
