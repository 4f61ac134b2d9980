"""Find the faces and landmarks of every image below a folder once, and keep them for training.

    ddl-d2 landmark data/portraits --workers 8
    ddl-d2 landmark ROOT --finder yunet --yunet-model face_detection_yunet.onnx

ROOT is any folder tree of images, a dataset too; folders called "masks" are left out. The results lie by the
content of the images in the cache that training and the other commands read (INPUT.FACES.CACHE), so an interrupted run
goes on where it stopped and a second run only reads.
Exit code 0: all images looked at, 1: some could not be read (listed), 2: ROOT or the finder cannot be used at all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from ddl_d2.cli.common import add_max_pixels, cli_errors
from ddl_d2.errors import ImageReadError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.finders import FINDERS, make_finder
from ddl_d2.forging.photos import PhotoFile, folder_photos

_finder: CachedFaceFinder | None = None  # of this process


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder tree of images")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--finder", choices=FINDERS, default="dlib", help="what finds the faces (%(default)s)")
    parser.add_argument("--yunet-model", type=Path, metavar="FILE", help="YuNet's ONNX file")
    parser.add_argument("--landmark-model", type=Path, metavar="FILE", help="another 68-point model for dlib")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where to keep the results (faces/ in $DDL_D2_CACHE)")
    add_max_pixels(parser)
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Landmark the images; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    photos = [
        photo
        for photo in folder_photos(args.root, max_pixels=args.max_pixels)
        if "masks" not in Path(photo.name).parts[:-1]
    ]
    make = partial(
        _start,
        cache=args.cache,
        name=args.finder,
        yunet_model=args.yunet_model,
        landmark_model=args.landmark_model,
    )
    make()  # here too: a finder that cannot work says so before any process starts
    faces, without, cached, failed = 0, 0, 0, []
    for photo, number, hit, problem in tqdm(_run(photos, args.workers, make), total=len(photos), unit="image"):
        if problem is not None:
            failed.append(f"{photo.name}: {problem}")
            continue
        faces, without, cached = faces + number, without + (number == 0), cached + hit
    print(
        f"{len(photos)} images, {faces} faces, {without} without a face, {len(failed)} failed; "
        f"{cached} were in the cache already"
    )
    for line in failed:
        print(f"failed {line}")
    return 1 if failed else 0


def _start(*, cache: Path | None, name: str, yunet_model: Path | None, landmark_model: Path | None) -> None:
    """Make this process's finder; a forked process has its parent's."""
    global _finder
    if _finder is not None and multiprocessing.parent_process() is not None:
        return
    cv2.setNumThreads(1)
    _finder = CachedFaceFinder(make_finder(name, yunet_model=yunet_model, landmark_model=landmark_model), cache)


def _look(photo: PhotoFile) -> tuple[PhotoFile, int, bool, str | None]:
    """(image, number of faces, whether it was in the cache, why it failed)."""
    assert _finder is not None  # noqa: S101  every process has started with `_start`
    before = _finder.hits
    try:
        number = len(_finder(photo.read()))
    except ImageReadError as error:
        return photo, 0, False, error.reason
    return photo, number, _finder.hits > before, None


def _run(photos: Sequence[PhotoFile], workers: int, make: partial[None]) -> Iterator[tuple]:
    if workers == 1:
        yield from map(_look, photos)
        return
    # Forked workers start at once; this process has no threads that a fork would miss.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=make)
    try:
        yield from pool.map(_look, photos, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)
