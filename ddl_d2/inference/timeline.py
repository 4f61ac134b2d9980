"""A score over the time of a video, as an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from ddl_d2.inference.overlay import BACKGROUND, FAINT, FORGED, GREEN, INK, fitting, font

_WIDTH, _HEIGHT = 1000, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 36, 40, 34
_TICKS = 8


def draw_curve(
    seconds: Sequence[float], scores: Sequence[float], threshold: float = 0.5, *, title: str = ""
) -> np.ndarray:
    """The scores of a video's frames against time, with the threshold; above it the curve is red.

    Where several frames share a column of pixels, their span is drawn and the line goes through their mean.

    Args:
        seconds, scores: one per frame, (F,), F >= 1, in order of time; scores in [0, 1].
        threshold: drawn as a line.
        title: shown above.

    Returns:
        uint8 300×1000×3 RGB.

    Raises:
        ValueError: no frames, or not one time for each score.
    """
    times, values = np.asarray(seconds, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(values) or len(values) != len(times):
        raise ValueError(f"a curve needs a time for each score, not {len(times)} for {len(values)}")
    canvas = Image.new("RGB", (_WIDTH, _HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    start, length = float(times.min()), float(np.ptp(times))
    columns = np.rint((times - start) / (length or 1) * (_WIDTH - _LEFT - _RIGHT)).astype(np.int64) + _LEFT
    _draw_axes(draw, start, length, threshold)
    _draw_line(draw, columns, values, threshold)
    draw.text((8, 8), fitting(draw, title, _WIDTH - 16), fill=INK, font=font(18))
    return np.asarray(canvas)


def _row(value: float) -> int:
    return _HEIGHT - _BOTTOM - round(value * (_HEIGHT - _TOP - _BOTTOM))


def _draw_axes(draw: ImageDraw.ImageDraw, start: float, length: float, threshold: float) -> None:
    for value in sorted({0.0, threshold, 1.0}):
        draw.line((_LEFT, _row(value), _WIDTH - _RIGHT, _row(value)), fill=INK if value == threshold else FAINT)
        draw.text((_LEFT - 6, _row(value)), f"{value:g}", fill=FAINT, font=font(15), anchor="rm")
    step = _nice_step(length / _TICKS) if length else 1.0
    tick = np.ceil(start / step) * step
    while tick <= start + length + 1e-9:
        x = _LEFT + round((tick - start) / (length or 1) * (_WIDTH - _LEFT - _RIGHT))
        draw.line((x, _row(0), x, _row(0) + 4), fill=FAINT)
        draw.text((x, _row(0) + 6), f"{tick:g} s", fill=FAINT, font=font(15), anchor="ma")
        tick = round(tick + step, 9)


def _nice_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and their fractions) seconds that is not below `least`."""
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9)))


def _draw_line(draw: ImageDraw.ImageDraw, columns: np.ndarray, values: np.ndarray, threshold: float) -> None:
    """The line through each column's mean, over the dimmed spans of columns with several frames."""
    points: list[tuple[int, float]] = []
    ends = np.append(np.flatnonzero(np.diff(columns)) + 1, len(columns))
    for start, end in zip((0, *ends), ends, strict=False):
        here, x = values[start:end], int(columns[start])
        points.append((x, float(here.mean())))
        if len(here) > 1:
            draw.line((x, _row(float(here.min())), x, _row(float(here.max()))), fill=_dimmed(points[-1][1], threshold))
    for (x0, y0), (x1, y1) in pairwise(points):
        if (y0 > threshold) != (y1 > threshold):  # two colors, which meet at the threshold
            middle = x0 + round((x1 - x0) * (threshold - y0) / (y1 - y0))
            draw.line((x0, _row(y0), middle, _row(threshold)), fill=_color(y0, threshold), width=2)
            x0, y0 = middle, threshold
        draw.line((x0, _row(y0), x1, _row(y1)), fill=_color(y1, threshold), width=2)
    if len(points) == 1:
        (x, y), radius = points[0], 3
        draw.ellipse((x - radius, _row(y) - radius, x + radius, _row(y) + radius), fill=_color(y, threshold))


def _color(score: float, threshold: float) -> tuple[int, int, int]:
    return FORGED if score > threshold else GREEN


def _dimmed(score: float, threshold: float) -> tuple[int, ...]:
    return tuple((2 * b + c) // 3 for b, c in zip(BACKGROUND, _color(score, threshold), strict=True))
