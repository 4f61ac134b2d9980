"""Make a set of real clips and clips with forged seconds, from real talking clips, in LAV-DF's layout.

    ddl-d2 make-temporal-forgeries --train talks/train --valid talks/valid --output data/clips
    ddl-d2 make-temporal-forgeries --train a/*.mp4 --output data/clips --speech espeak-ng --count 2

Spans of the picture are self-blended, given the mouth of another time, repeated, reversed or re-timed; spans of the
sound are vocoded, moved in pitch, spoken by others, put into another room, or by a program. No person should be in both
splits. Beside the set comes a table of trivial statistics (leaks.json): what of a forgery could be told without looking
at it. A set of one's own; not a benchmark.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.config.span_options import AUDIO_KINDS, SPEECH, VISUAL_KINDS, SpanOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.evaluation.leaks import COMPARISONS, leak_lines, leak_table
from ddl_d2.faces.finders import FINDERS
from ddl_d2.forging.alignments import read_words
from ddl_d2.forging.forged_clips import MODALITIES, ClipSource, ForgedClipsSettings, make_forged_clips
from ddl_d2.forging.speech import check_speech
from ddl_d2.inference.images import expand_inputs
from ddl_d2.io.atomic import write_json


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", required=True, metavar="PATH", help="real clips: files, folders, globs")
    parser.add_argument("--valid", nargs="+", default=[], metavar="PATH", help="real clips of other people")
    parser.add_argument("--output", type=Path, required=True, metavar="ROOT", help="folder to make the set in")
    parser.add_argument(
        "--count", type=positive, default=4, help="draws of each clip, each with a real clip and one forged in each "
        "of --modalities (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--modalities", nargs="+", choices=MODALITIES, default=list(MODALITIES), help="what is forged (all three)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same set (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the face crops, pixels (%(default)s)")
    parser.add_argument(
        "--silence", type=float, default=0.05, metavar="S", help="kept before and after speech, seconds (%(default)s)"
    )
    parser.add_argument(
        "--align", nargs="+", default=[], metavar="DIR",
        help="folders with words' times, NAME.align for NAME.mp4: lines `start end word`, in 1/25000 s, as GRID's",
    )  # fmt: skip
    parser.add_argument(
        "--speech", choices=SPEECH[1:], default="", help="a program that speaks other words, if it is installed"
    )
    parser.add_argument("--visual-kinds", nargs="+", choices=VISUAL_KINDS, help="of forged pictures (all)")
    parser.add_argument("--audio-kinds", nargs="+", choices=AUDIO_KINDS, help="of forged sound (all)")
    parser.add_argument("--finder", choices=FINDERS, default="dlib", help="what finds faces (%(default)s)")
    parser.add_argument("--yunet-model", default="", metavar="FILE", help="the model file that --finder yunet needs")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--no-leaks", action="store_true", help="leave the table of trivial statistics out")
    parser.add_argument("--overwrite", action="store_true", help="delete a set made earlier, then make it anew")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Make the set; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.speech:
        check_speech()
    sources = {"train": _sources(args.train, args.align)}
    if args.valid:
        sources["valid"] = _sources(args.valid, args.align)
    _refuse_shared(sources)
    manifest = make_forged_clips(
        args.output, sources, _settings(args), workers=args.workers, overwrite=args.overwrite
    )  # fmt: skip
    for name, reason in manifest["left_out"].items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    if not args.no_leaks:
        rows = json.loads((args.output / "metadata.json").read_text(encoding="utf-8"))
        table = leak_table(args.output, rows)
        write_json(args.output / "leaks.json", [_plain(row) for row in table])
        print("\n".join(leak_lines(table)))
    for split, number in manifest["clips"].items():
        print(f"{split}: {number} clips of {len(sources.get(split, ()))} sources")
    return 0


def _settings(args: argparse.Namespace) -> ForgedClipsSettings:
    kinds = {"visual_kinds": args.visual_kinds, "audio_kinds": args.audio_kinds}
    chosen: dict[str, Any] = {name: tuple(value) for name, value in kinds.items() if value}
    try:
        options = SpanOptions(speech=args.speech, **chosen)
    except ValueError as error:
        raise ForgeryError(str(error)) from error
    return ForgedClipsSettings(
        count=args.count,
        seed=args.seed,
        size=args.size,
        silence=args.silence,
        modalities=tuple(args.modalities),
        finder=args.finder,
        yunet_model=args.yunet_model,
        options=options,
    )


def _sources(paths: Sequence[str], align: Sequence[str]) -> list[ClipSource]:
    """The clips that are meant, with names of their own and the times of their words."""
    found = []
    for path in expand_inputs(paths).videos:
        tables = [table for folder in align if (table := Path(folder) / f"{path.stem}.align").is_file()]
        words = read_words(tables[0]) if tables else ()
        found.append(ClipSource(path, f"{path.parent.name}_{path.stem}", words))
    names = [source.name for source in found]
    if not found:
        raise ForgeryError(f"no video in {', '.join(paths)}")
    if len(set(names)) < len(names):
        raise ForgeryError("two clips have one name, and folders of one name: rename one of the folders")
    return found


def _refuse_shared(sources: dict[str, list[ClipSource]]) -> None:
    """Refuse a clip that is in both splits."""
    paths = [{source.path.resolve() for source in group} for group in sources.values()]
    shared = set.intersection(*paths) if len(paths) > 1 else set()
    if shared:
        raise ForgeryError(f"{sorted(shared)[0]}: is in --train and in --valid; split clips by person")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table as JSON has it: there is no NaN."""
    return row | {name: None if math.isnan(row[name]) else round(row[name], 4) for name in COMPARISONS}
