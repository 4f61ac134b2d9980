"""Say of images and videos whether they are real or forged, and of images which pixels were forged.

    ddl-d2 predict photo.jpg
    ddl-d2 predict folder/ "more/*.png" --weights model.safetensors --output results
    ddl-d2 predict folder/ --weights model.safetensors --jsonl > results.jsonl
    ddl-d2 predict photo.jpg --fragility

Prints a line per file: the score, the log10 likelihood ratio if the weights are calibrated (`ddl-d2 calibrate`), the
verdict, the forged share of a fake's pixels (of a video the number of frames looked at; of a clip, by a system that
sees picture and sound, the forged seconds), the file. With --output, an overlay of each image, a timeline of each video
and results.jsonl go into a folder; a second call with the same folder goes on where the first ended.

Exit code 0: all went well; 1: some files could not be read; 2: nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, count, positive, probability
from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.clip_prediction import ClipPrediction
from ddl_d2.inference.deliveries import with_fragility
from ddl_d2.inference.images import Inputs, check_side_files, expand_inputs, plan_outputs, reliability_file
from ddl_d2.inference.model import Model, load_model
from ddl_d2.inference.prediction import Prediction
from ddl_d2.inference.results_file import ResultsFile
from ddl_d2.inference.summary import score_text
from ddl_d2.inference.video import VideoPrediction
from ddl_d2.io.image import write_png
from ddl_d2.predictions.ddl_x import check_stems, write_answer
from ddl_d2.predictions.maps import quantize_map
from ddl_d2.predictions.verdict import CALIBRATED, NO_FACE, PLAIN, says_forged
from ddl_d2.utils.text import printable

Row = dict[str, Any]
Result = Prediction | VideoPrediction | ClipPrediction | ImageReadError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, videos, folders and globs")
    parser.add_argument(
        "--weights", metavar="FILE", help="trained weights, .safetensors or .pth (default: those that come with ddl_d2)"
    )
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for overlays and results.jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another model in --output")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON list at the end instead of a table")
    form.add_argument("--jsonl", action="store_true", help="print a line of JSON per image, as soon as it is done")
    parser.add_argument(
        "--fragility",
        action="store_true",
        help="look at each image again after twelve deliveries (JPEG, WebP, resizing, screenshot, crop, messenger, "
        'blur, noise); a verdict that does not hold becomes "inconclusive"',
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="see each image mirrored and at other sizes, too, and say how far that changes the score and each pixel; "
        "with --output, a reliability map beside each overlay",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="of what is called forged: which faces and parts of faces are marked, and how they differ from the skin "
        "beside them",
    )
    parser.add_argument(
        "--ddl-x", type=Path, metavar="DIR", help="write answers of the DDL-X challenge there, of images predicted now"
    )
    parser.add_argument(
        "--calibration", metavar="FILE", help="of `ddl-d2 calibrate`, or a name (default: what the weights carry)"
    )
    point = parser.add_mutually_exclusive_group()
    point.add_argument(
        "--threshold",
        type=probability,
        help="a score above it is fake, uncalibrated (without a calibration: 0.5)",
    )
    point.add_argument(
        "--false-alarms",
        type=probability,
        metavar="RATE",
        help="decide by the threshold at which the calibration expects this share of real images to be called fake",
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images at once (%(default)s)")
    parser.add_argument(
        "--frames", type=count, default=32, metavar="N", help="evenly spaced frames of a video; 0 = all (%(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Predict images and videos; returns the exit code."""
    args = build_parser().parse_args(argv)
    inputs = expand_inputs(args.paths, output=args.output)
    sources = [*inputs.images, *inputs.videos]
    if not sources:
        raise InputError("nothing to predict: all files lie in the folder of results; name another with --output")
    if args.ddl_x is not None:
        check_stems(inputs.images)
    model = load_model(
        args.weights,
        config=args.config,
        device=args.device,
        threshold=args.threshold,
        calibration=args.calibration,
        opts=[*args.opts, *(("TEST.UNCERTAINTY.ENABLED", "True") if args.uncertainty else ())],
    )
    if args.false_alarms is not None:
        model = model.at_false_alarms(args.false_alarms)
    if inputs.images and model.cfg.INPUT.CLIP.ENABLED:
        raise InputError(f"{inputs.images[0]}: is an image, but {model.cfg.MODEL.META_ARCHITECTURE} sees clips")
    if args.weights is None:
        print(f"weights: {model.about}", file=sys.stderr)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    rows = []
    say = _printer(args)
    for row in tqdm(_results(model, inputs, args), total=len(sources), unit="file", disable=None):
        say(row)
        rows.append(row)
    failed = sum("error" in row for row in rows)
    if args.json:
        print(json.dumps(rows, indent=2))
    if note := inputs.note():
        print(f"note: {note}", file=sys.stderr)
    verdicts = Counter(row.get("verdict", "failed") for row in rows)
    parts = [
        f"{verdicts[name]} {name}"
        for name in (*PLAIN, *CALIBRATED, NO_FACE, "failed")
        if name in verdicts or name in (CALIBRATED if model.calibration else PLAIN) or name == "failed"
    ]
    print(f"{len(rows)} files: {', '.join(parts)} ({_decided_by(model)})", file=sys.stderr)
    return 0 if not failed else 1 if failed < len(rows) else 2


def _decided_by(model: Model) -> str:
    """What the verdicts rest on."""
    if model.calibration is None:
        return f"uncalibrated: the threshold is {model.threshold:g}"
    return f"calibrated on {model.calibration.about_corpus}"


def _results(model: Model, inputs: Inputs, args: argparse.Namespace) -> Iterator[Row]:
    """A row per image, then one per video; with --output, also on disk."""
    if args.output is None:
        for result in _predicted(model, inputs.images, inputs.videos, args):
            yield result.to_dict() if not isinstance(result, ImageReadError) else _failure(result)
        return
    sources = [*inputs.images, *inputs.videos]
    drawings = dict(zip(sources, plan_outputs(sources, args.output), strict=True))
    if args.uncertainty:
        check_side_files(list(drawings.values()), sources, reliability_file)
    made_by = {**model.describe(), "frames": args.frames, **_asked(args)}
    with ResultsFile(args.output, made_by, overwrite=args.overwrite) as results:
        known = {path: results.known(path) for path in sources}
        images, videos = ([p for p in group if known[p] is None] for group in (inputs.images, inputs.videos))
        fresh = _predicted(model, images, videos, args)
        for path in sources:
            yield known[path] or results.add(path, _drawn(next(fresh), drawings[path]))


def _asked(args: argparse.Namespace) -> dict[str, bool]:
    """What was asked for besides predictions; results without it are others."""
    return {name: True for name in ("fragility", "explain") if getattr(args, name)}


def _predicted(
    model: Model, images: Sequence[Path], videos: Sequence[Path], args: argparse.Namespace
) -> Iterator[Result]:
    """A result per file, or why there is none."""
    predictions = model.predict_many(images, batch_size=args.batch_size)
    if args.fragility:
        predictions = with_fragility(model, predictions, batch_size=args.batch_size)
    for prediction in predictions:
        if prediction.error is None and args.explain:
            prediction.explain(model.landmark_finder)
        if prediction.error is None and args.ddl_x is not None:
            write_answer(args.ddl_x, Path(prediction.file).name, prediction.ddl_x_answer())
        yield prediction
    for path in videos:
        try:
            yield model.predict_video(path, frames=args.frames)
        except ImageReadError as error:
            yield error


def _drawn(result: Result, drawing: Path) -> Row:
    """Write the overlay or timeline of a result; returns its row."""
    if isinstance(result, ImageReadError):
        return _failure(result)
    if isinstance(result, Prediction) and result.error is not None:
        return result.to_dict()
    try:
        write_png(drawing, result.draw())
        beside = _write_reliability(result, drawing)
    except OSError as error:
        return {"file": result.file, "error": f"its overlay cannot be written ({error.strerror or error})"}
    return {**result.to_dict(), "overlay": printable(drawing.name), **beside}


def _write_reliability(result: Prediction | VideoPrediction | ClipPrediction, drawing: Path) -> Row:
    """Write the reliability map of an image, if the model was asked for it; returns its entry of the row."""
    if not isinstance(result, Prediction) or "reliability_map" not in result.output or result.verdict == NO_FACE:
        return {}
    path = reliability_file(drawing)
    write_png(path, quantize_map(result.reliability_map))
    return {"reliability_map": printable(path.name)}


def _failure(error: ImageReadError) -> Row:
    return {"file": printable(error.path), "error": error.reason}


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
    # The map says where, not whether: of an image that is not called fake it has nothing to say.
    share = f"{row['forged_share']:6.1%} forged" if says_forged(row["verdict"]) and "forged_share" in row else ""
    what = f"{len(row['frames']):6} frames" if "frames" in row else row.get("words", share)
    ratio = row.get("log10_lr")
    strength = "" if ratio is None else f"  log10 LR {ratio:+.2f}"
    print(f"{score_text(row['score'])}{strength}  {row['verdict']}  {what:13}  {row['file']}")
    if "uncertainty" in row:
        found = row["uncertainty"]
        sure = "" if found.get("forged_reliability") is None else f", pixels agree by {found['forged_reliability']:.2f}"
        print(f"        over views: score ± {found['score_spread']:.4f}{sure}")
    if "explanation" in row:
        print("\n".join(f"        {line}" for line in row["explanation"]["text"].splitlines()))
    if "fragility" in row:
        print(
            f"        {row['fragility']['reason']}; masks overlap by {row['fragility']['mean_map_iou']:.2f} on average"
        )
    if "note" in row:
        print(f"note: {row['file']}: {row['note']}", file=sys.stderr)
