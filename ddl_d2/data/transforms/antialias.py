"""Resizing of uint8 arrays with PyTorch's antialiased bilinear kernel: Pillow's result to one gray level, rarely two.

Legend: `H, W` rows and columns of the source, `C` channels, a size is (height, width), a window (top, left, height,
width) of the result. Along x first, rounded to uint8, then along y: the order of PyTorch and of Pillow.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

Window = tuple[int, int, int, int]

_WORTHWHILE = 0.75
"""A window of a larger share of the result is cut from the whole: leaving pixels out costs copies."""


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H x W x C to `size` x C, contiguous."""
    return _kernel(pixels, size=size)


def resize_window(pixels: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """`resize_pixels(pixels, size)[top : top + height, left : left + width]`, without computing all the rest."""
    top, left, height, width = window
    if height * width > _WORTHWHILE * size[0] * size[1]:
        return resize_pixels(pixels, size)[top : top + height, left : left + width]
    first, last = _reach(pixels.shape[0], size[0], top, top + height)
    part = pixels[first:last, : _reach(pixels.shape[1], size[1], 0, left + width)[1]]
    columns = _leading(part, 1, pixels.shape[1], size[1])[:, left : left + width]
    # The kernel counts from the first row. Those above `first` reach no row of the window.
    rows = np.zeros((last, *columns.shape[1:]), dtype=np.uint8)
    rows[first:] = columns
    return _leading(rows, 0, pixels.shape[0], size[0])[top : top + height]


def resize_plane(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H x W to `size`: what `resize_pixels` gives for one channel, in an eighth to a quarter of its time.

    Rows and columns of zeros only, most of a forgery mask, are left out.
    """
    resized = np.zeros(size, dtype=np.uint8)
    _, top, _, height = cv2.boundingRect(plane)
    if not height:
        return resized
    columns = _resize_rows(cv2.transpose(plane[top : top + height]), size[1])  # size[1] x height
    _, left, _, width = cv2.boundingRect(columns)
    rows = np.zeros((plane.shape[0], width), dtype=np.uint8)
    rows[top : top + height] = cv2.transpose(columns[left : left + width])
    resized[:, left : left + width] = _resize_rows(rows, size[0])
    return resized


def _resize_rows(plane: np.ndarray, height: int) -> np.ndarray:
    """H x W to height x W.

    Four neighbors in a row are taken as the four channels of one pixel: they do not mix when only the height changes,
    and four channels are vectorised where one is not.
    """
    source, width = plane.shape
    padded = cv2.copyMakeBorder(plane, 0, 0, 0, -width % 4, cv2.BORDER_CONSTANT) if width % 4 else plane
    quads = padded.reshape(source, -1, 4)
    return _kernel(quads, size=(height, quads.shape[1])).reshape(height, -1)[:, :width]


def _leading(part: np.ndarray, axis: int, source: int, target: int) -> np.ndarray:
    """Resize along one axis only: `part` holds the first of `source` pixels, the result the first of `target`."""
    kept = part.shape[axis]
    other = part.shape[1 - axis]
    if kept == source:
        return _kernel(part, size=(target, other) if axis == 0 else (other, target))
    scale = target / source
    return _kernel(part, scale=(scale, 1.0) if axis == 0 else (1.0, scale))


def _reach(source: int, target: int, start: int, stop: int) -> tuple[int, int]:
    """The range of source pixels that the targets start..stop are made of, and a few more at either end."""
    step = source / target
    support = max(1.0, step)
    first = math.floor((start + 0.5) * step - support) - 1
    last = math.ceil((stop - 0.5) * step + support) + 1
    # A part that would come out as long as it is, the kernel takes for one that need not be resized.
    if int(last * (target / source)) == last:
        last = source
    return max(0, first), min(source, last)


def _kernel(
    pixels: np.ndarray, *, size: tuple[int, int] | None = None, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """H x W x C resized to `size`, or by `scale` (then to as many whole pixels as fit)."""
    # Only a batch whose strides are those of "channels last", that of the batch axis included, is resized in one
    # vectorised pass and comes back interleaved: adding the batch axis last costs three to five times as much.
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    resized = interpolate(batch, size, scale, mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
