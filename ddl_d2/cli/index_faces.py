"""List the face crops of a config's datasets once, with a label of their own, for training and testing on them.

    ddl-d2 index-faces --config-file ddl_i/lfdl_xception --output faces --workers 16 DATASETS.DDL_ROOT /data/ddl
    ddl-d2 train --config-file ddl_i/lfdl_xception INPUT.FACE_CROP.INDEX faces DATASETS.DDL_ROOT /data/ddl

Every image of DATASETS.TRAIN and DATASETS.TEST is looked at; the index of each dataset is a CSV file in --output.
Faces come from INPUT.FACES.LIST, or are found (and remembered in INPUT.FACES.CACHE, so that an interrupted run goes on
quickly). Exit code 0: all images indexed, 1: some cannot be read (counted; training counts them as bad), 2: nothing
done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from tqdm import tqdm

from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.data.build import check_dataset_names, index_path
from ddl_d2.data.build_faces import build_face_finder, crop_settings, make_face_crop
from ddl_d2.data.datasets import load_config
from ddl_d2.data.face_index import IndexedFace, faces_of_row, write_index
from ddl_d2.errors import ConfigError
from ddl_d2.faces.crop import FaceCropper
from ddl_d2.faces.face import Face
from ddl_d2.faces.listed import FaceList

_Look = tuple[FaceCropper, FaceList | None, int]
_look: _Look | None = None  # of this process
_WINDOW = 50_000


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a config file, or the name of one")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the indexes")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Index the datasets; returns the exit code."""
    args = build_parser().parse_args(argv)
    cfg = load_config(args.config_file, args.opts)
    names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    check_dataset_names(names)
    if not names:
        raise ConfigError("DATASETS.TRAIN and DATASETS.TEST are empty: nothing to index")
    _start(cfg)  # here, too: a finder that cannot work says so before any process starts
    unreadable = 0
    for name in names:
        rows = get_detection_dataset_dicts(name, filter_empty=False)
        tally = Tally()
        found = tqdm(_run(rows, args.workers, cfg), total=len(rows), unit="image", desc=name)
        write_index(index_path(args.output, name), crop_settings(cfg), tally.counted(found))
        print(f"{name}: {tally}")
        unreadable += tally.unreadable
    return 1 if unreadable else 0


class Tally:
    """What was found in a dataset."""

    def __init__(self) -> None:
        self.images = self.without = self.unreadable = 0
        self.crops = {0: 0, 1: 0, -1: 0}

    def counted(self, found: Iterable[tuple[str, list[IndexedFace]]]) -> Iterator[tuple[str, list[IndexedFace]]]:
        """Count what passes by."""
        for image_id, faces in found:
            self.images += 1
            unreadable = not any(faces[0].window)
            self.unreadable += unreadable
            self.without += not unreadable and not any(face.has_face for face in faces)
            for face in faces:
                self.crops[face.label] += 1
            yield image_id, faces

    def __str__(self) -> str:
        images = f"{self.images} images, {self.without} without a face, {self.unreadable} unreadable"
        real, fake = self.crops[0], self.crops[1]
        return (
            f"{images}; {sum(self.crops.values())} crops: {real} real, {fake} fake "
            f"(an epoch with as many of each: {2 * max(real, fake)})"
        )


class _NoFinder:
    """Stands for a finder where faces come from a list."""

    settings: Mapping[str, Any] = {}

    def __call__(self, image: Any) -> list[Face]:
        raise NotImplementedError("the faces of a list are not looked for")


def _start(cfg: CfgNode) -> None:
    """Make this process's finder or list; a forked process has its parent's."""
    global _look
    if _look is not None and multiprocessing.parent_process() is not None:
        return
    cv2.setNumThreads(1)
    listed = FaceList(cfg.INPUT.FACES.LIST) if cfg.INPUT.FACES.LIST else None
    if listed is not None and cfg.INPUT.FACE_CROP.RULE == "landmarks" and not listed.has_landmarks():
        raise ConfigError(
            f"{listed.path}: faces without landmarks, which INPUT.FACE_CROP.RULE landmarks needs. Boxes alone go with "
            "RULE box; where they are crops already, with MARGIN 0.0"
        )
    finder = _NoFinder() if listed is not None else build_face_finder(cfg)
    _look = make_face_crop(cfg, finder, choice="all"), listed, cfg.INPUT.MAX_PIXELS


def _index(row: Mapping[str, Any]) -> tuple[str, list[IndexedFace]]:
    assert _look is not None  # noqa: S101  every process has started with `_start`
    cropper, listed, max_pixels = _look
    return row["image_id"], faces_of_row(row, cropper, listed=listed, max_pixels=max_pixels)


def _run(rows: Sequence[Mapping[str, Any]], workers: int, cfg: CfgNode) -> Iterator[tuple[str, list[IndexedFace]]]:
    if workers == 1:
        yield from map(_index, rows)
        return
    # Forked workers start at once; this process has no threads that a fork would miss.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(cfg,))
    try:
        for start in range(0, len(rows), _WINDOW):  # rows are made here, before they are sent
            window = (rows[number] for number in range(start, min(start + _WINDOW, len(rows))))
            yield from pool.map(_index, window, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)
