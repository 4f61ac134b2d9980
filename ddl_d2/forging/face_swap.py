"""Pairs of a real face and a swap-like forgery of it, made of one photograph at the low resolution of videos.

The photograph is cut to the face and shrunk as a camera and a codec would have seen it; the same person's face,
mirrored, re-posed or bent, softened and recolored, is displaced and blended in; and both images then go the same way
through light, resizing and compression. A pair costs a few milliseconds, since everything happens at 40 to 230 pixels.

Source: the blend of a photograph with itself is that of self-blended images (Shiohara and Yamasaki, CVPR 2022); what
differs was measured (docs/release_ablation.md).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.faces.face import MIRRORED
from ddl_d2.forging.blend import blend
from ddl_d2.forging.camera import camera_steps, channel_steps
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.eigenfaces import Eigenfaces
from ddl_d2.forging.face_autoencoder import FaceAutoencoder
from ddl_d2.forging.swap_mask import bent_mask, feathered, swap_hull
from ddl_d2.forging.swap_source import face_width, harmonized, matched, moved_source, new_looks

_HARMONY_REACH = (0.03, 0.12)


class SwapPair(NamedTuple):
    """A real image and its forgery, after the same degradation.

    Attributes:
        real, forged: uint8 S×S×3 RGB.
        soft: float32 S×S in [0, 1]; how much of a pixel is pasted, before the weight of the blend.
    """

    real: np.ndarray
    forged: np.ndarray
    soft: np.ndarray


def swap_pair(
    image: np.ndarray,
    landmarks: np.ndarray,
    rng: np.random.Generator,
    options: SwapOptions,
    eigenfaces: Eigenfaces | None = None,
    autoencoder: FaceAutoencoder | None = None,
) -> SwapPair:
    """Make a pair of one real photograph.

    Args:
        image: uint8 H×W×3 RGB; not changed.
        landmarks: 68×2 of (x, y), pixels, of the face.
        rng: the only source of randomness; its state advances.
        options: what is drawn from.
        eigenfaces: rebuild some of the pasted faces, as `options.eigen_prob` says.
        autoencoder: rebuilds others, as `options.autoencoder_prob` says, and whole images (`options.whole_prob`).

    Returns:
        The pair, of `options.size` pixels a side; the same for the same arguments and state of `rng`.
    """
    draw = Draw(rng)
    real, points = photographed(image, landmarks, draw, options)
    if autoencoder is not None and draw.chance(options.whole_prob):
        longest = max(real.shape[:2]) * draw.within_log(options.whole_size)
        target, forged, soft = real, autoencoder.whole(real, draw, longest=longest), np.ones(real.shape[:2], np.float32)
    else:
        target, forged, soft = forged_face(real, points, draw, options, eigenfaces, autoencoder)
    steps = channel_steps(draw, options)
    for step in steps:
        target, forged = step(target), step(forged)
    soft = cv2.resize(soft, (options.size, options.size), interpolation=cv2.INTER_LINEAR)
    return SwapPair(target, forged, soft)


def photographed(
    image: np.ndarray, landmarks: np.ndarray, draw: Draw, options: SwapOptions
) -> tuple[np.ndarray, np.ndarray]:
    """The face as a camera saw it, and its landmarks: cut out, maybe mirrored and turned, small and degraded."""
    points = landmarks.astype(np.float32)
    if draw.chance(0.5):
        image = image[:, ::-1]
        points = points[MIRRORED] * np.array([-1, 1], np.float32) + np.array([image.shape[1] - 1, 0], np.float32)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    wide, high = right - left, bottom - top
    x0, x1 = left - wide * draw.within(options.margin), right + wide * draw.within(options.margin)
    y0, y1 = top - high * draw.within(options.margin_top), bottom + high * draw.within((0.0, 0.25))
    x0, y0 = max(0, int(x0)), max(0, int(y0))
    image = image[y0 : max(y0 + 8, int(y1)), x0 : max(x0 + 8, int(x1))]
    points = points - np.array([x0, y0], np.float32)
    ratio = min(1.0, draw.within_log(options.forged_at) / max(image.shape[:2]))
    size = (max(16, round(image.shape[1] * ratio)), max(16, round(image.shape[0] * ratio)))
    points = points * np.array([size[0] / image.shape[1], size[1] / image.shape[0]], np.float32)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if draw.chance(options.rotate_prob):
        image, points = _turned(image, points, draw, options)
    if draw.chance(options.camera_prob):
        for step in camera_steps(draw, options, face_width(points)):
            image = step(image)
    return image, points


def _turned(image: np.ndarray, points: np.ndarray, draw: Draw, options: SwapOptions) -> tuple[np.ndarray, np.ndarray]:
    """Image and landmarks as seen by a camera that is turned, and moved to a side."""
    height, width = image.shape[:2]
    center = points.mean(0)
    turn = cv2.getRotationMatrix2D((float(center[0]), float(center[1])), draw.within(options.rotate), 1.0)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + options.perspective * np.array([width, height], np.float32) * draw.noise((4, 2), 1.0)
    view = cv2.getPerspectiveTransform(corners, moved) @ np.vstack([turn, [0, 0, 1]])
    image = cv2.warpPerspective(image, view, (width, height), borderMode=cv2.BORDER_REFLECT)
    return image, cv2.perspectiveTransform(points[None], view)[0].astype(np.float32)


def forged_face(
    real: np.ndarray,
    points: np.ndarray,
    draw: Draw,
    options: SwapOptions,
    eigenfaces: Eigenfaces | None = None,
    autoencoder: FaceAutoencoder | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paste a changed copy of the face over it; -> what is real of it, the forgery, and the soft mask.

    The real one is `real` itself, or `real` with the new looks where the surroundings have them.
    """
    width = max(face_width(points), 8.0)
    source, target = moved_source(real, points, draw, options), real
    if eigenfaces is not None and draw.chance(options.eigen_prob):
        source = eigenfaces.rebuilt(source, points, draw)
    elif autoencoder is not None and draw.chance(options.autoencoder_prob):
        source = autoencoder.rebuilt(source, points, draw)
    if draw.chance(options.source_prob):
        source = new_looks(source, width, draw, options)
    else:
        target = new_looks(target, width, draw, options)
    mask = bent_mask(swap_hull(points, real.shape[:2], draw, options), width, draw, options)
    source, mask = _displaced(source, mask, points, width, draw, options)
    if draw.chance(options.match_prob):
        source = matched(source, target, mask, draw.within(options.match))
    if draw.chance(options.harmonize_prob):
        source = harmonized(source, target, width, _HARMONY_REACH, draw)
    soft = feathered(mask, width, draw, options)
    return target, blend(target, source, soft * np.float32(draw.one_of(options.ratios))), soft


def _displaced(
    source: np.ndarray, mask: np.ndarray, points: np.ndarray, width: float, draw: Draw, options: SwapOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Source and mask, shifted and scaled about the face's center together."""
    (x, y), scale = points.mean(0), draw.within(options.scale)
    shift = (width * draw.within(options.shift_x), width * draw.within(options.shift_y))
    move = np.array([[scale, 0, x * (1 - scale) + shift[0]], [0, scale, y * (1 - scale) + shift[1]]])
    size = (source.shape[1], source.shape[0])
    return (
        cv2.warpAffine(source, move, size, borderMode=cv2.BORDER_REFLECT),
        cv2.warpAffine(mask, move, size),
    )
