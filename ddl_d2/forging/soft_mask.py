"""From a region's polygons to its soft mask: elastic deformation, erosion, blur, and the optional mosaic.

Everything happens in *raster pixels*: the face's square (the box of its landmarks, enlarged by a half) is drawn
192-256 pixels wide whatever its size in the image, and only the part of it around the region. That is what the
numbers of self-blended images (SBI) refer to, and it bounds the cost for large faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ddl_d2.forging.regions import polygon_mask
from ddl_d2.forging.warp import Box

_ENLARGED = 1.5
_FIELD_CELL = 4  # the elastic noise is drawn on a grid this coarse (raster pixels): its blur is wider anyway


@dataclass(frozen=True)
class Elastic:
    """White noise in [-1, 1] of `seed`, blurred with `sigma` and multiplied by `alpha` (raster pixels)."""

    alpha: float
    sigma: float
    seed: int


@dataclass(frozen=True)
class Mosaic:
    """Averaging over square cells of `cell` raster pixels on a grid turned by `angle` degrees, times `opacity`."""

    cell: int
    angle: float
    opacity: float


@dataclass(frozen=True)
class Softening:
    """How a region's mask is made soft.

    Attributes:
        raster: side of the face's square, raster pixels.
        erode: odd; a rim of (erode - 1) / 2 raster pixels is taken away.
        blur: odd size of the Gaussian's kernel, raster pixels.
        blur_sigma: its sigma, raster pixels.
        elastic: deformation before it; None for none.
        mosaic: jitter after it; None for none.
    """

    raster: int
    erode: int
    blur: int
    blur_sigma: float
    elastic: Elastic | None = None
    mosaic: Mosaic | None = None

    @property
    def taken(self) -> float:
        """How far (raster pixels) inside its polygons the soft mask reaches its full height."""
        return (self.erode - 1) / 2 + (self.blur - 1) / 2

    @property
    def reach(self) -> float:
        """How far (raster pixels) the soft mask may extend beyond its polygons."""
        reach = (self.blur - 1) / 2 + 2
        if self.elastic is not None:  # 5 standard deviations of the blurred noise
            reach += 5 * self.elastic.alpha * _noise_deviation(self.elastic.sigma)
        if self.mosaic is not None:
            reach += 1.5 * self.mosaic.cell
        return reach


def face_square_side(landmarks: np.ndarray) -> float:
    """Compute the side (pixels) of the square that a face is masked in: its box's longer side and a half more.

    The box is that of the landmarks, N×2 of (x, y), pixels.
    """
    return float(np.ptp(landmarks, axis=0).max()) * _ENLARGED


def region_box(
    polygons: Sequence[np.ndarray], softening: Softening, *, side: float, shape: tuple[int, int]
) -> Box | None:
    """Compute the box of an image that holds a soft mask.

    Args:
        polygons: float N×2 each, of (x, y), pixels.
        softening: how the mask is made soft.
        side: of the face's square, pixels.
        shape: (H, W) of the image.

    Returns:
        (x0, y0, x1, y1), the ends not included; None if it lies outside the image.
    """
    points = np.concatenate(list(polygons))
    margin = softening.reach * side / softening.raster + 1
    x0, y0 = (max(0, int(np.floor(v))) for v in points.min(0) - margin)
    x1, y1 = (min(n, int(np.ceil(v)) + 1) for v, n in zip(points.max(0) + margin, shape[::-1], strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def soft_region_mask(
    polygons: Sequence[np.ndarray], softening: Softening, *, box: Box, side: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the hard and the soft mask of polygons within a box of the image.

    Args:
        polygons: convex, float N×2 each, of (x, y), pixels of the image.
        softening: how the mask is made soft.
        box: from `region_box`.
        side: of the face's square, pixels.

    Returns:
        hard: bool, the polygons themselves.
        soft: float32 in [0, 1].
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    scale = softening.raster / max(side, 1.0)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    ratio = np.array([columns / width, rows / height])
    # Pixel centers are at whole numbers in image and raster alike.
    raster = polygon_mask([(polygon - (x0, y0) + 0.5) * ratio - 0.5 for polygon in polygons], (rows, columns))
    soft = soften(raster, softening)
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    hard = cv2.resize(raster * np.uint8(255), (width, height), interpolation=way) > 127
    return hard, np.clip(cv2.resize(soft, (width, height), interpolation=way), 0, 1)  # OpenCV's weights sum to 1 + 1e-7


def soften(mask: np.ndarray, softening: Softening) -> np.ndarray:
    """Make a mask (bool H×W, raster pixels) soft: elastic deformation, erosion, blur, mosaic, in this order.

    SBI erodes by blurring and keeping only what is still at the maximum: with a kernel that is positive everywhere
    that is erosion by the kernel's square, which is done here directly. Both kernels are cut for regions they would
    wipe out: two thirds of the largest circle inside survive the erosion, and the blur is no wider than the rest.

    Returns:
        float32 H×W in [0, 1].
    """
    values = mask.astype(np.uint8)
    if softening.elastic is not None:
        values = _deform(values, softening.elastic)
    if not values.any():
        return values.astype(np.float32)
    inner = int(cv2.distanceTransform(values, cv2.DIST_L2, 3).max())
    rim = min((softening.erode - 1) // 2, inner // 3)
    if rim:
        values = cv2.erode(values, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))
    half = min((softening.blur - 1) // 2, max(inner - rim, 1))
    soft = values.astype(np.float32)
    if half:
        kernel, sigma = (2 * half + 1, 2 * half + 1), softening.blur_sigma
        soft = cv2.GaussianBlur(soft, kernel, sigma, borderType=cv2.BORDER_REPLICATE)
        soft = np.minimum(soft / max(float(soft.max()), 1e-6), 1.0)
        soft[soft > 1 - 1e-5] = 1.0  # rounding inside the mask
    return soft if softening.mosaic is None else mosaic(soft, softening.mosaic)


def mosaic(soft: np.ndarray, jitter: Mosaic) -> np.ndarray:
    """Average a soft mask (float32 H×W) over the cells of a turned grid and weaken it; see `Mosaic`.

    The averages are scaled so that the peak stays (before the opacity): a thin region would fade away.
    """
    rows, columns = np.indices(soft.shape, dtype=np.float32)
    cosine, sine = np.cos(np.deg2rad(jitter.angle)), np.sin(np.deg2rad(jitter.angle))
    across = np.floor((columns * cosine + rows * sine) / jitter.cell).astype(np.int64)
    down = np.floor((rows * cosine - columns * sine) / jitter.cell).astype(np.int64)
    across -= across.min()
    cell = ((down - down.min()) * (across.max() + 1) + across).ravel()
    total, number = np.bincount(cell, weights=soft.ravel()), np.bincount(cell)
    means = total / np.maximum(number, 1)
    means *= soft.max() / max(float(means.max()), 1e-6)
    return (jitter.opacity * means[cell]).reshape(soft.shape).astype(np.float32)


def _deform(mask: np.ndarray, elastic: Elastic) -> np.ndarray:
    """`mask` (uint8 of 0 and 1) moved by smooth noise, cut at one half."""
    height, width = mask.shape
    grid = (-(-height // _FIELD_CELL) + 1, -(-width // _FIELD_CELL) + 1)
    noise = np.random.default_rng(elastic.seed).uniform(-1, 1, (*grid, 2)).astype(np.float32)
    sigma = elastic.sigma / _FIELD_CELL
    # noise on a coarser grid is correlated farther: the same blur leaves more of it, so it is scaled back
    strength = elastic.alpha * _noise_deviation(elastic.sigma) / _noise_deviation(sigma)
    field = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) * np.float32(strength)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    xs = field[..., 0] + np.arange(width, dtype=np.float32)
    ys = field[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(mask * np.uint8(255), xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return (moved > 127).astype(np.uint8)


def _noise_deviation(sigma: float) -> float:
    """Standard deviation of white noise in [-1, 1] after a Gaussian blur of `sigma` pixels (two dimensions)."""
    return float(min(1.0, 1 / (2 * np.sqrt(np.pi) * sigma)) / np.sqrt(3))
