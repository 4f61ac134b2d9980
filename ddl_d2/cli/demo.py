r"""Show what a trained model says about images or a video.

    ddl-d2 demo --config-file configs/quickstart/mask2former_efficientnet_lite0.yaml \
        --input face.jpg folder/ "more/*.png" --output out/ --opts MODEL.WEIGHTS output/model_final.pth
    ddl-d2 demo --config-file ... --video-input clip.mp4 --output out/ --opts MODEL.WEIGHTS ...

For each image: an overlay (.png) and the numbers (.json; with INPUT.FACE_CROP also those of each face crop), with
--heat-map also what the score rests on (.heat_map.png); for all of them predictions.json. For a video: the scores of
its frames (.json), their timeline (.png) and the annotated video with its sound (.mp4), or with --frames 32 the scores
of as many evenly spaced frames and no video; of a system that sees picture and sound the forged seconds, likewise. No
display is needed.

Exit code 0: all went well; 1: some images of several could not be read; 2: nothing could be done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ddl_d2.checkpoint.config import config_for
from ddl_d2.cli.common import cli_errors, count, probability
from ddl_d2.data.datasets.clips import truth_of
from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.clip import ClipPredictor, annotate_clip
from ddl_d2.inference.images import (
    SUMMARY_NAME,
    Inputs,
    check_side_files,
    expand_inputs,
    heat_map_file,
    plan_outputs,
    predict_images,
)
from ddl_d2.inference.model import Model
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.summary import score_text
from ddl_d2.inference.video import annotate_video
from ddl_d2.io.atomic import write_json
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.utils.malloc import keep_freed_memory
from ddl_d2.utils.text import printable


def build_parser() -> argparse.ArgumentParser:
    """The command line: Detectron2's demo, with an output that is not optional."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-file", metavar="FILE", help="the model's config, a file or a name (default: that of MODEL.WEIGHTS)"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="PATH", help="images, videos, globs and folders")
    source.add_argument("--video-input", type=Path, metavar="FILE", help="a video, or a folder of videos")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="PATH", help="a folder; or a .png (one image), a .mp4 (video)"
    )
    parser.add_argument(
        "--confidence-threshold",
        type=probability,
        help="a score above it is a fake, uncalibrated (default without a calibration: 0.5)",
    )
    parser.add_argument(
        "--calibration", metavar="FILE", help="of `ddl-d2 calibrate` (default: the one that the weights carry, if any)"
    )
    parser.add_argument("--heat-map", action="store_true", help="images: also draw what the score rests on")
    parser.add_argument(
        "--frames", type=count, default=0, metavar="N", help="video: score N evenly spaced frames (default: all)"
    )
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="clips: JSON with what is forged, as LAV-DF's metadata, to be drawn"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.heat_map and args.video_input is not None:
        parser.error("--heat-map is for images (--input)")
    if args.frames and args.output.suffix.lower() == ".mp4":
        parser.error("--frames writes no video: give a folder as --output")
    inputs = expand_inputs(args.input or [args.video_input], output=args.output)
    if args.video_input is not None:
        inputs = Inputs([], inputs.videos if args.video_input.is_dir() else [args.video_input], inputs.passed_over)
    outputs = _planned(inputs, args)
    model, about = _load(args)
    predictor = model.predictor
    if isinstance(predictor, ClipPredictor):
        if inputs.images:
            raise InputError(f"{inputs.images[0]}: is an image, but {about['meta_architecture']} sees clips")
        annotate = partial(_annotate_clip, model=model, predictor=predictor, about=about, args=args)
        heads, bad = _annotate_all(inputs, outputs, annotate)
        return _report(heads, bad, inputs, about, args)
    if args.truth is not None:
        raise InputError(f"--truth is for systems that see clips, not for {about['meta_architecture']}")
    rows, failed = _predict_images(inputs, outputs, model, predictor, about, args)
    annotate = partial(_annotate_video, model=model, predictor=predictor, about=about, args=args)
    heads, bad = _annotate_all(inputs, outputs, annotate)
    return _report([*rows, *heads], [*failed, *bad], inputs, about, args)


def _planned(inputs: Inputs, args: argparse.Namespace) -> dict[Path, Path]:
    """The overlay of each image, and the annotated video of each video."""
    if args.output.suffix.lower() == ".mp4" and not args.output.is_dir():
        if inputs.images or len(inputs.videos) != 1:
            raise InputError(f"{args.output}: one video fits in one file; give a folder")
        planned = {inputs.videos[0]: args.output}
    else:
        sources = [*inputs.images, *inputs.videos]
        if not sources:
            raise InputError(f"{args.output}: all files lie in the folder of results; choose another folder")
        planned = dict(zip(sources, plan_outputs(sources, args.output), strict=True))
        planned |= {video: planned[video].with_suffix(".mp4") for video in inputs.videos}
    if args.heat_map:
        check_side_files([planned[image] for image in inputs.images], inputs.images, heat_map_file)
    for video in inputs.videos:
        if planned[video].resolve() == video.resolve():
            raise InputError(f"{planned[video]}: the annotated video would replace the one that is to be read")
    return planned


def _predict_images(
    inputs: Inputs,
    outputs: Mapping[Path, Path],
    model: Model,
    predictor: ForgeryPredictor,
    about: Mapping[str, Any],
    args: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[ImageReadError]]:
    jobs = [(image, outputs[image]) for image in inputs.images]
    return predict_images(
        tqdm(jobs, unit="image", disable=None if len(jobs) > 1 else True),
        predictor,
        threshold=model.threshold,
        map_threshold=model.map_threshold,
        max_pixels=model.cfg.INPUT.MAX_PIXELS,
        calibration=model.calibration,
        about={"model": about},
        heat_maps=args.heat_map,
    )


def _annotate_all(
    inputs: Inputs, outputs: Mapping[Path, Path], annotate: Callable[..., dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[ImageReadError]]:
    """Annotate each video by `annotate(source, target, on_frame=...)`; the head of each, and what could not be read."""
    heads, failed = [], []
    for source in inputs.videos:
        with tqdm(unit="frame", desc=printable(source.name), disable=None) as bar:
            try:
                heads.append(annotate(source, outputs[source], on_frame=bar.update))
            except ImageReadError as error:
                failed.append(error)
    return heads, failed


def _annotate_video(
    source: Path,
    target: Path,
    *,
    model: Model,
    predictor: ForgeryPredictor,
    about: Mapping[str, Any],
    args: argparse.Namespace,
    on_frame: Callable[[], object],
) -> dict[str, Any]:
    return annotate_video(
        source,
        predictor,
        target.with_suffix(".json"),
        video=None if args.frames else target,
        curve=target.with_suffix(".png"),
        frames=args.frames,
        video_score=model.cfg.TEST.VIDEO_SCORE,
        threshold=model.threshold,
        map_threshold=model.map_threshold,
        max_pixels=model.cfg.INPUT.MAX_PIXELS,
        about={"model": about},
        on_frame=on_frame,
    )


def _annotate_clip(
    source: Path,
    target: Path,
    *,
    model: Model,
    predictor: ClipPredictor,
    about: Mapping[str, Any],
    args: argparse.Namespace,
    on_frame: Callable[[], object],
) -> dict[str, Any]:
    return annotate_clip(
        source,
        predictor,
        target.with_suffix(".json"),
        video=target,
        curve=target.with_suffix(".png"),
        threshold=model.threshold,
        truth=None if args.truth is None else truth_of(args.truth, source),
        about={"model": about},
        on_frame=on_frame,
    )


def _report(
    rows: Sequence[dict[str, Any]],
    failed: Sequence[ImageReadError],
    inputs: Inputs,
    about: Mapping[str, Any],
    args: argparse.Namespace,
) -> int:
    """Say what was found, write the list of all, and return the exit code."""
    total = len(rows) + len(failed)
    if failed and total == 1:
        raise failed[0]
    for error in failed:
        print(f"error: {printable(str(error))}", file=sys.stderr)
    if not rows:
        raise InputError(f"none of the {total} files could be read")
    for row in rows[:20]:
        frames = f" ({row['frame_count']} frames)" if "frame_count" in row else ""
        words = f"  {row['words']}" if row.get("words") else ""
        print(f"{score_text(row['score'])}  {row['verdict']}  {row['file']}{frames}{words}")
        if "note" in row:
            print(f"note: {row['file']}: {row['note']}", file=sys.stderr)
    if inputs.images and args.output.suffix.lower() != ".png":
        bad = [{"file": printable(error.path), "reason": error.reason} for error in failed]
        write_json(args.output / SUMMARY_NAME, {"model": about, "predictions": rows, "failed": bad})
    if note := inputs.note():
        print(f"note: {note}", file=sys.stderr)
    print(f"{len(rows)} of {total} files; results in {printable(args.output)}")
    if failed:
        print(f"error: {len(failed)} of {total} files could not be read", file=sys.stderr)
    return 1 if failed else 0


def _load(args: argparse.Namespace) -> tuple[Model, dict[str, Any]]:
    keep_freed_memory()
    named = dict(zip(args.opts[::2], args.opts[1::2], strict=False)).get("MODEL.WEIGHTS", "")
    cfg = config_for(named, config=args.config_file, opts=args.opts)
    model = Model.from_cfg(cfg, threshold=args.confidence_threshold, calibration=args.calibration)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    weights = Path(cfg.MODEL.WEIGHTS)
    about = {
        "config": args.config_file or "of the weights",
        "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
        "weights": str(weights),
        "weights_sha256": file_sha256(weights) if weights.is_file() else None,
    }
    return model, about
