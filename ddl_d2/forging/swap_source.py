"""The face that a swap-like forgery pastes: the same person, re-posed, of other sharpness, color and light.

Shapes: `H, W` pixels; `points` float32 68×2 of (x, y), pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.faces.face import MIRRORED
from ddl_d2.forging.camera import softening
from ddl_d2.forging.draw import Draw, Range

# Landmarks that move together when a face is re-posed: brows, nose, eyes, mouth.
_GROUPS = (range(17, 22), range(22, 27), range(27, 36), range(36, 42), range(42, 48), range(48, 68))
# Displacement fields are computed on every n-th pixel; they are smooth.
_GRID = 8


def moved_source(image: np.ndarray, points: np.ndarray, draw: Draw, options: SwapOptions) -> np.ndarray:
    """The photograph with its face mirrored, re-posed, bent or left as it is; landmarks stay about where they were."""
    width = face_width(points)
    if draw.chance(options.mirror_prob):
        flipped = np.ascontiguousarray(image[:, ::-1])
        start = points.copy()
        start[:, 0] = image.shape[1] - 1 - start[:, 0]
        return warped_to(flipped, start[MIRRORED], _reposed(points, width, draw), width)
    if draw.chance(options.repose_prob):
        return warped_to(image, points, _reposed(points, width, draw), width)
    if draw.chance(options.bend_prob):
        return _bent(image, points, width, draw)
    return image


def face_width(points: np.ndarray) -> float:
    """Horizontal extent of the landmarks, pixels."""
    return float(np.ptp(points[:, 0]))


def _reposed(points: np.ndarray, width: float, draw: Draw) -> np.ndarray:
    goal = points.copy()
    for group in _GROUPS:
        move = width * draw.within((-0.025, 0.025)), width * draw.within((-0.04, 0.04))
        goal[list(group)] += np.array(move, np.float32)
    return goal


def warped_to(image: np.ndarray, start: np.ndarray, goal: np.ndarray, width: float) -> np.ndarray:
    """Move what is at the points `start` to `goal`, and what is between them smoothly along.

    The displacement of a place is the mean of the points', weighted by a Gaussian of .12 of the face's width.
    """
    height, wide = image.shape[:2]
    ys, xs = np.mgrid[0:height:_GRID, 0:wide:_GRID].astype(np.float32)
    grid = np.stack([xs.ravel(), ys.ravel()], 1)
    goal, start = goal.astype(np.float32), start.astype(np.float32)
    squared = (grid**2).sum(1)[:, None] - 2 * grid @ goal.T + (goal**2).sum(1)
    near = np.exp(squared * np.float32(-1 / (2 * (0.12 * width) ** 2)))
    far = np.exp(squared * np.float32(-1 / (2 * (0.6 * width) ** 2)))
    weights = near + 1e-4 * far + 1e-9
    moves = (weights @ (start - goal)) / weights.sum(1, keepdims=True)
    return _sampled(image, moves.reshape(*ys.shape, 2))


def _bent(image: np.ndarray, points: np.ndarray, width: float, draw: Draw) -> np.ndarray:
    ys, xs = np.mgrid[0 : image.shape[0] : _GRID, 0 : image.shape[1] : _GRID].astype(np.float32)
    moves = np.zeros((*ys.shape, 2), np.float32)
    for _ in range(1 + int(draw.rng.integers(3))):
        x, y = points[int(draw.rng.integers(len(points)))]
        radius, angle = width * draw.within((0.12, 0.3)), draw.within((0.0, 2 * np.pi))
        bump = np.exp(((xs - x) ** 2 + (ys - y) ** 2) * np.float32(-1.125 / radius**2))
        length = radius * draw.within((0.1, 0.3))
        moves[..., 0] += bump * np.float32(length * np.cos(angle))
        moves[..., 1] += bump * np.float32(length * np.sin(angle))
    return _sampled(image, moves)


def _sampled(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Each pixel taken from where it is plus its move (float32 h×w×2 on the coarse grid)."""
    height, width = image.shape[:2]
    rows, columns = moves.shape[:2]
    fine = cv2.resize(moves, (columns * _GRID, rows * _GRID), interpolation=cv2.INTER_LINEAR)[:height, :width]
    map_x = fine[..., 0] + np.arange(width, dtype=np.float32)
    map_y = fine[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def new_looks(image: np.ndarray, width: float, draw: Draw, options: SwapOptions) -> np.ndarray:
    """Another color, sharpness and light; for the pasted face, or for all around it."""
    if options.recolor > 0:
        image = _recolored(image, draw, options.recolor)
    if draw.chance(options.soften_prob):
        image = softening(draw, width)(image)
    elif draw.chance(options.sharpen_prob / max(1 - options.soften_prob, 1e-6)):
        blurred = cv2.GaussianBlur(image, (0, 0), draw.within((0.5, 1.5)))
        amount = draw.within((0.2, 0.9))
        image = cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)
    if draw.chance(options.relight_prob):
        image = _relit(image, draw)
    return image


def _recolored(image: np.ndarray, draw: Draw, scale: float) -> np.ndarray:
    gray = np.tile([0.299, 0.587, 0.114], (3, 1))
    factor, gain = 1 + scale * draw.within((-0.25, 0.25)), 1 + scale * draw.within((-0.12, 0.12))
    matrix = gain * (factor * np.eye(3) + (1 - factor) * gray)
    shift = 20 * scale if draw.chance(0.4) else 4 * scale
    common = 22 * scale * draw.within((-1.0, 1.0))
    offsets = [[common + shift * draw.within((-1.0, 1.0))] for _ in range(3)]
    return cv2.transform(image, np.hstack([matrix, np.array(offsets)]))


def _relit(image: np.ndarray, draw: Draw) -> np.ndarray:
    """A smooth field of light, brighter on one side than on the other."""
    field = 1 + draw.noise((3, 3), draw.within((0.04, 0.2)))
    wide = cv2.resize(field, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * wide[..., None], 0, 255).astype(np.uint8)


def matched(source: np.ndarray, target: np.ndarray, mask: np.ndarray, strength: float) -> np.ndarray:
    """Bring mean and deviation of the source's channels inside a uint8 mask closer to the target's."""
    if cv2.countNonZero(mask) < 50:
        return source
    (mean_s, dev_s), (mean_t, dev_t) = cv2.meanStdDev(source, mask=mask), cv2.meanStdDev(target, mask=mask)
    gain = 1 + strength * (np.clip((dev_t + 1) / (dev_s + 1), 0.7, 1.4) - 1)
    offset = mean_s + strength * (mean_t - mean_s) - gain * mean_s
    return cv2.transform(source, np.hstack([np.diag(gain[:, 0]), offset]))


def harmonized(source: np.ndarray, target: np.ndarray, width: float, reach: Range, draw: Draw) -> np.ndarray:
    """The source's fine structure on the target's local colors, as seamless cloning leaves it."""
    sigma = max(1.0, width * draw.within(reach) / 4)
    small = (max(8, source.shape[1] // 4), max(8, source.shape[0] // 4))
    coarse = [
        cv2.GaussianBlur(cv2.resize(x, small, interpolation=cv2.INTER_AREA), (0, 0), sigma).astype(np.float32)
        for x in (source, target)
    ]
    change = cv2.resize(coarse[1] - coarse[0], (source.shape[1], source.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(source + change, 0, 255).astype(np.uint8)
