"""Forging a span of a clip's picture.

Whole frames from the first to the last of the span are forged, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.config.span_options import SpanOptions
from ddl_d2.faces.face import Face
from ddl_d2.forging.blend import blend
from ddl_d2.forging.regions import region_polygons
from ddl_d2.forging.self_blend import NoSuitableFaceError, self_blend

BLENDING = ForgeryOptions(
    # The target alone changes its appearance: given to the source, whole frames would change.
    appearance_weights=(0.0, 1.0, 0.0),
    parts=("mouth", "mouth", "lower_face", "nose", "eye_band"),
    whole_face_prob=0.4,
    ratios=(0.75, 1.0, 1.0),
    # A face that turns dark from one frame to the next is a glitch, not a forgery.
    brightness=(-0.05, 0.05),
    sharpen_lightness=(0.85, 1.0),
)
"""What the self-blending of a span is drawn from: the lower face more often than other parts."""
NEEDS_FACE = frozenset({"self_blend", "other_mouth"})
"""Kinds that need a face in every frame."""

_TRIES = 5
_STEADY = slice(27, 48)  # nose and eyes: what does not move when a face speaks
_SOFTNESS = 0.06  # sigma of a mask's edge, as a share of the face's width


def forge_picture(
    frames: np.ndarray,
    start: int,
    end: int,
    *,
    kind: str,
    faces: Sequence[Face],
    fps: float,
    rng: np.random.Generator,
    options: SpanOptions,
) -> dict[str, Any]:
    """Forge frames `start` to `end` (not included) in place.

    Args:
        frames: uint8 t×H×W×3 RGB.
        start: first frame of the span.
        end: the frame behind it.
        kind: one of `config.span_options.VISUAL_KINDS`.
        faces: one a frame, for the kinds in `NEEDS_FACE`; see `faces.track.track_face`.
        fps: frames a second.
        rng: the only source of randomness.
        options: what to draw from.

    Returns:
        what was drawn, as JSON values.

    Raises:
        NoSuitableFaceError: the face is too small, or not in the image.
        KeyError: an unknown kind.
    """
    if kind in NEEDS_FACE:
        forge = {"self_blend": _self_blend, "other_mouth": _other_mouth}[kind]
        return {"kind": kind, **forge(frames, start, end, faces, fps, rng, options)}
    order = _ORDERS[kind](start, end, len(frames), rng)
    frames[start:end] = frames[order]
    return {"kind": kind, "first": int(order[0]), "last": int(order[-1])}


def _self_blend(
    frames: np.ndarray,
    start: int,
    end: int,
    faces: Sequence[Face],
    fps: float,
    rng: np.random.Generator,
    options: SpanOptions,
) -> dict[str, Any]:
    """The same forgery in all frames: one seed, drawn anew where it misses the face in some frame."""
    del fps, options
    for left in reversed(range(_TRIES)):
        seed = int(rng.integers(2**32))
        try:
            made = [self_blend(frames[k], [faces[k]], np.random.default_rng(seed), BLENDING) for k in range(start, end)]
        except NoSuitableFaceError:
            if not left:
                raise
            continue
        frames[start:end] = [forgery.image for forgery in made]
        return {"seed": seed, "regions": [plan["region"] for plan in made[0].record["faces"][0]["regions"]]}
    raise AssertionError("the last try raises")


def _other_mouth(
    frames: np.ndarray,
    start: int,
    end: int,
    faces: Sequence[Face],
    fps: float,
    rng: np.random.Generator,
    options: SpanOptions,
) -> dict[str, Any]:
    """The lower face of frames some time before or after, laid over by nose and eyes: what is said does not fit."""
    lowest, highest = (round(seconds * fps) for seconds in options.mouth_offset)
    possible = [
        offset
        for size in range(max(1, lowest), highest + 1)
        for offset in (-size, size)
        if start + offset >= 0 and end + offset <= len(frames)
    ]
    room = max(start, len(frames) - end)
    if not possible:  # a short clip: as far as it goes
        possible = [-start if start == room else len(frames) - end]
    offset = int(possible[int(rng.integers(len(possible)))])
    source = frames.copy()
    for k in range(start, end):
        frames[k] = _with_lower_face(frames[k], faces[k], source[k + offset], faces[k + offset])
    return {"offset": offset}


def _with_lower_face(image: np.ndarray, face: Face, other: np.ndarray, its_face: Face) -> np.ndarray:
    """An image whose lower face is another image's, in its color."""
    matrix, _ = cv2.estimateAffinePartial2D(its_face.landmarks[_STEADY], face.landmarks[_STEADY], method=cv2.LMEDS)
    if matrix is None:
        raise NoSuitableFaceError("the landmarks of its nose and eyes lie in one point")
    height, width = image.shape[:2]
    laid = cv2.warpAffine(other, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.uint8)
    for landmarks in (face.landmarks, its_face.moved(matrix).landmarks):
        for polygon in region_polygons(landmarks, "lower_face"):
            cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 255)
    sigma = _SOFTNESS * face.width
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=max(1, round(sigma)))
    soft = cv2.GaussianBlur(inner, (0, 0), sigma).astype(np.float32) / 255
    inside = mask > 0
    if not inside.any():
        raise NoSuitableFaceError("its lower face lies outside the image")
    shift = image[inside].mean(axis=0) - laid[inside].mean(axis=0)
    return blend(image, np.clip(laid + shift, 0, 255).astype(np.uint8), soft)


def _repeated(start: int, end: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """The frames before the span once more, or those behind it early."""
    del rng
    length = end - start
    if start >= length or start >= total - end:
        first = max(0, start - length)
        return first + np.arange(length) % max(1, start - first)
    return end + np.arange(length) % (total - end)


def _reversed(start: int, end: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """The span's own frames, backwards."""
    del total, rng
    return np.arange(end - 1, start - 1, -1)


def _retimed(start: int, end: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """The span's own frames, first slowly and then fast, or the reverse."""
    del total
    power = rng.uniform(1.7, 2.5) ** rng.choice([-1, 1])
    length = end - start
    return start + (length * (np.arange(length) / length) ** power).astype(int)


_ORDERS: dict[str, Callable[[int, int, int, np.random.Generator], np.ndarray]] = {
    "repeated": _repeated,
    "reversed": _reversed,
    "retimed": _retimed,
}
