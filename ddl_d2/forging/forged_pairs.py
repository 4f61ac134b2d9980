"""Making one image of a forged dataset: a real image and a forgery of it, in one of four styles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.faces.crop import crop_around
from ddl_d2.faces.face import Face
from ddl_d2.forging.canvas import ComposeOptions, Photo, compose, draw_cells
from ddl_d2.forging.combine import CombineOptions, random_combination
from ddl_d2.forging.photos import PhotoFile
from ddl_d2.forging.self_blend import Forgery, NoSuitableFaceError, self_blend
from ddl_d2.io.image import read_image

STYLES = ("canvas", "faces", "plain", "combination")
# Of a face's box, kept around it in the style "faces".
_FACE_MARGIN = (0.0, 0.35)
_ATTEMPTS = 20

PLAIN_OPTIONS = ForgeryOptions(whole_face_prob=1.0, drag_count=(0, 0))
"""Self-blended images (Shiohara and Yamasaki, CVPR 2022): whole faces, without local translations."""

TOY_OPTIONS = ForgeryOptions(
    whole_face_prob=0.4,
    part_count=(1, 2),
    ratios=(0.85, 0.9, 0.95, 1.0),
    erode_kernel=(3, 9),
    blur_kernel=(3, 11),
    appearance_weights=(0.0, 1.0, 0.0),
    rgb_shift_prob=0.5,
    rgb_shift=(-30.0, 30.0),
    hue=(-8.0, 8.0),
    saturation=(0.55, 1.5),
    brightness=(-0.12, 0.12),
    contrast=(-0.2, 0.25),
    frequency=("downscale", "sharpen", "blur"),
    noise_prob=0.25,
    jpeg_prob=0.25,
)
"""Forgeries that a small network learns to see in minutes: stronger than the defaults, never nearly transparent, and
the appearance always changes in the target, so that the real image of a pair is the canvas itself."""


def make_pair(
    photos: Sequence[PhotoFile], rng: np.random.Generator, *, style: str, size: int, index: int = 0
) -> tuple[dict[str, Any], Forgery]:
    """Make a forgery with its real partner, not compressed yet.

    Args:
        photos: to choose from, with their faces.
        rng: the only source of randomness.
        style: one of `STYLES`. "canvas": a square of one or several faces, forged by `TOY_OPTIONS`. "faces": a
            photograph cut to a face, forged as in training on self-blended images (`ForgeryOptions`). "plain": the
            same, the whole face and undisplaced (`PLAIN_OPTIONS`). "combination": a whole photograph with faces of
            others in it (`CombineOptions`).
        size: the canvas' side, or the most that the shortest side of the others may be, pixels.
        index: number of the pair: which photograph it starts from, but for "canvas".

    Returns:
        What is to be said of the image under the forgery, plain values for JSON; and the forgery.

    Raises:
        ForgeryError: no image with a face wide enough to forge came up.
    """
    for attempt in range(_ATTEMPTS):
        number = (index + attempt) % len(photos)
        try:
            if style in ("faces", "plain"):
                options = PLAIN_OPTIONS if style == "plain" else ForgeryOptions()
                return _forge_face(photos[number], rng, size, options)
            if style == "combination":
                return _combine_photos(photos, number, rng, size)
            return _forge_canvas(photos, rng, size)
        except NoSuitableFaceError:
            continue  # every face fell out of its cell or is too narrow: draw again
    raise ForgeryError(f"no face fit to forge in {_ATTEMPTS} images of {size} pixels; use a larger size")


def _forge_canvas(photos: Sequence[PhotoFile], rng: np.random.Generator, size: int) -> tuple[dict[str, Any], Forgery]:
    options = ComposeOptions()
    cells = draw_cells(size, rng, options)
    chosen = [photos[int(i)] for i in rng.integers(len(photos), size=len(cells))]
    canvas = compose([_load(photo) for photo in chosen], cells, rng, options)
    return canvas.record, self_blend(canvas.image, canvas.faces, rng, TOY_OPTIONS)


def _forge_face(
    photo: PhotoFile, rng: np.random.Generator, size: int, options: ForgeryOptions
) -> tuple[dict[str, Any], Forgery]:
    face = photo.faces[int(rng.integers(len(photo.faces)))]
    margins = rng.uniform(*_FACE_MARGIN, size=4)
    image, face = crop_around(_read(photo), face, margins=margins)
    image, (face,) = _fitted(image, [face], size)
    record = {"photograph": photo.name, "margins": [round(float(m), 4) for m in margins]}
    return record, self_blend(image, [face], rng, options)


def _combine_photos(
    photos: Sequence[PhotoFile], number: int, rng: np.random.Generator, size: int
) -> tuple[dict[str, Any], Forgery]:
    photo, others = photos[number], [*photos[:number], *photos[number + 1 :]]
    drawn = rng.choice(len(others), size=min(len(others), CombineOptions().count[1]), replace=False)
    image, faces = _fitted(_read(photo), photo.faces, size)
    host = Photo(photo.name, image, tuple(faces))
    return {"photograph": photo.name}, random_combination(host, [_load(others[i]) for i in drawn], rng)


def _fitted(image: np.ndarray, faces: Sequence[Face], size: int) -> tuple[np.ndarray, list[Face]]:
    """An image whose shortest side is at most `size`, and its faces."""
    scale = size / min(image.shape[:2])
    if scale >= 1:
        return image, list(faces)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    matrix = np.array([[width / image.shape[1], 0.0, 0.0], [0.0, height / image.shape[0], 0.0]])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small, [face.moved(matrix) for face in faces]


def _read(photo: PhotoFile) -> np.ndarray:
    return _read_file(photo.path, photo.max_pixels)


@lru_cache(maxsize=32)
def _read_file(path: Path, max_pixels: int) -> np.ndarray:
    return read_image(path, max_pixels=max_pixels)


def _load(photo: PhotoFile) -> Photo:
    return Photo(photo.name, _read(photo), photo.faces)
