#!/usr/bin/env python3
r"""Time each stage of predicting images on their face crops (INPUT.FACE_CROP).

    benchmarks/benchmark_faces.py --config-file configs/two_cores/swin_unet_efficientnet_lite0.yaml --images photos/
    benchmarks/benchmark_faces.py --config-file ... --images photos/ --count 8 --rounds 5 --json faces.json \
        --opts INPUT.FACE_CROP.RULE landmarks INPUT.FACES.FINDER yunet INPUT.FACES.YUNET_MODEL yunet.onnx

The stages: decoding; finding the faces, at the first sight of an image ("cold") and when they are remembered
("cached"); cutting, resizing and packing the crops; the network; putting the crops' predictions together. Then the
whole, from file to prediction, cold and cached. Face crops are switched on whatever the config says, the faces are
remembered in a folder made for this, and without MODEL.WEIGHTS the network is untrained, which takes as long.

Before anything is timed, the stages must give the predictions of `ForgeryPredictor`. Wall-clock milliseconds per
image in one process, medians of the rounds with the minimum in brackets. The network, and what OpenCV splits, run on
--threads threads; finding faces with dlib takes one core whatever there is.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tabulate import tabulate

from ddl_d2.cli.common import cli_errors
from ddl_d2.data.build_faces import build_face_crop
from ddl_d2.data.datasets import load_config
from ddl_d2.data.mapper import inference_input
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.inference.images import expand_inputs
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.io.atomic import write_json
from ddl_d2.io.image import read_image
from ddl_d2.modeling.test_time.build import wrapped_for_testing
from ddl_d2.utils.malloc import keep_freed_memory
from ddl_d2.utils.precision import autocast

STAGES = ("decode", "detect, cold", "detect, cached", "crop", "forward", "paste")
WHOLE = ("whole, cold", "whole, cached")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the system's config")
    parser.add_argument("--images", required=True, nargs="+", metavar="PATH", help="images, globs and folders")
    parser.add_argument("--count", type=int, default=16, help="images used, the first ones (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch and OpenCV (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every stage (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


def build_predictor(cfg: CfgNode) -> ForgeryPredictor:
    """As `ForgeryPredictor.from_cfg`, but untrained if MODEL.WEIGHTS is empty."""
    if cfg.MODEL.WEIGHTS:
        return ForgeryPredictor.from_cfg(cfg)
    model = wrapped_for_testing(cfg, build_model(cfg).eval())
    resize = ResizeToFit(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return ForgeryPredictor(model, resize, precision=cfg.TEST.PRECISION, crop=build_face_crop(cfg, False))


class Stages:
    """Seconds of wall-clock time by the name of the stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def predict_by_stages(predictor: ForgeryPredictor, path: Path, max_pixels: int, stage: Stages) -> dict[str, Any]:
    """The prediction of an image that has not been seen before, each stage timed; its faces are looked for twice."""
    with stage("decode"):
        image = read_image(path, max_pixels=max_pixels)
    with stage("detect, cold"):
        predictor.crop(image)
    with stage("detect, cached"):
        windows = predictor.crop(image)
    with stage("crop"):
        row = inference_input(image, predictor.augmentation, lambda _: windows)
    wrapped = predictor.model
    with torch.no_grad(), autocast(next(wrapped.parameters()).device.type, predictor.precision):
        with stage("forward"):
            rows, step = wrapped.windows(row), wrapped.batch_size
            outputs = [output for i in range(0, len(rows), step) for output in wrapped.model(rows[i : i + step])]
            _wait(outputs)
        with stage("paste"):
            merged = wrapped.merge(row, outputs)
            _wait([merged])
    return merged


def _wait(outputs: Sequence[dict[str, Any]]) -> None:
    """Until a GPU has computed them."""
    if outputs[0].get("forgery_map") is not None and outputs[0]["forgery_map"].is_cuda:
        torch.cuda.synchronize()


def predict_whole(predictor: ForgeryPredictor, path: Path, max_pixels: int) -> dict[str, Any]:
    """From file to prediction, as the demo does it."""
    prediction = predictor(read_image(path, max_pixels=max_pixels))
    _wait([prediction])
    return prediction


def same_prediction(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether score, faces and map are equal to the last bit."""
    maps = [prediction.get("forgery_map") for prediction in (one, other)]
    same_maps = maps[0] is maps[1] if maps[0] is None or maps[1] is None else torch.equal(*maps)
    return same_maps and one["fake_score"] == other["fake_score"] and one["faces"] == other["faces"]


def measure(predictor: ForgeryPredictor, paths: Sequence[Path], rounds: int, max_pixels: int) -> dict[str, Any]:
    """{stage: milliseconds per image of each round}, and how many crops there are; round 0 does not count.

    Round 0 warms up and compares.
    """
    finder, times, crops = predictor.crop.finder.finder, defaultdict(list), 0
    for number in range(rounds + 1):
        stage = Stages()
        with tempfile.TemporaryDirectory() as by_stage, tempfile.TemporaryDirectory() as whole:
            predictor.crop.finder = CachedFaceFinder(finder, by_stage)
            staged = [predict_by_stages(predictor, path, max_pixels, stage) for path in paths]
            predictor.crop.finder = CachedFaceFinder(finder, whole)
            for name in WHOLE:
                with stage(name):
                    found = [predict_whole(predictor, path, max_pixels) for path in paths]
        if not number:
            crops = sum(len(prediction["faces"]) for prediction in found)
            for path, one, other in zip(paths, staged, found, strict=True):
                if not same_prediction(one, other):
                    raise SystemExit(f"error: {path}: the stages give another prediction, so their times mean nothing")
            continue
        for name in (*STAGES, *WHOLE):
            times[name].append(1000 * stage.seconds[name] / len(paths))
    return {"ms": dict(times), "crops": crops}


def report(measured: dict[str, Any], images: int, threads: int) -> dict[str, Any]:
    """All figures, as they go to the JSON file."""
    medians = {name: statistics.median(times) for name, times in measured["ms"].items()}
    return {
        "machine": f"{platform.machine()}, torch {torch.__version__}, {threads} threads",
        "load_average": os.getloadavg()[0],
        "images": images,
        "crops_per_image": measured["crops"] / images,
        "equal": True,
        "ms": medians,
        "ms_minimum": {name: min(times) for name, times in measured["ms"].items()},
        "images_per_second": {name: 1000 / ms for name, ms in medians.items()},
    }


def tables(figures: dict[str, Any]) -> str:
    """What is printed."""
    rows = [
        [name, f"{ms:.2f} ({figures['ms_minimum'][name]:.2f})", f"{figures['images_per_second'][name]:.1f}"]
        for name, ms in figures["ms"].items()
    ]
    faster = figures["ms"]["whole, cold"] / figures["ms"]["whole, cached"]
    return "\n".join(
        [
            tabulate(rows, headers=["stage", "ms/image", "images/s"], disable_numparse=True),
            "",
            f"{figures['images']} images of {figures['crops_per_image']:.2f} crops; once the faces are "
            f"remembered, {faster:.2f} times as fast",
        ]
    )


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if min(args.count, args.threads, args.rounds) < 1:
        parser.error("--count, --threads and --rounds must be at least 1")
    paths = expand_inputs(args.images).images[: args.count]
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    keep_freed_memory()  # as tools/demo.py does
    cfg = load_config(args.config_file, [*args.opts, "INPUT.FACE_CROP.ENABLED", "True"])
    torch.manual_seed(0)
    predictor = build_predictor(cfg)
    figures = report(measure(predictor, paths, args.rounds, cfg.INPUT.MAX_PIXELS), len(paths), args.threads)
    print(f"{figures['machine']}, load average {figures['load_average']:.1f}")
    print(tables(figures))
    if args.json is not None:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
