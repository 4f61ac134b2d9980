"""The score of a video over its time, as a plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ddl_d2.inference.overlay import BACKGROUND, FAINT, FORGED, GREEN, INK

_WIDTH, _HEIGHT, _DPI = 1000, 300, 100
Color = tuple[float, float, float]


def draw_timeline(
    seconds: Sequence[float], scores: Sequence[float], threshold: float = 0.5, *, title: str = ""
) -> np.ndarray:
    """Plot the scores of a video's frames against time, with the threshold; above the threshold the line is red.

    Args:
        seconds: times of the frames, (F,), F >= 1, ascending.
        scores: one per frame, in [0, 1]; NaN for a frame that has none, which the line passes over.
        threshold: drawn as a line.
        title: shown above.

    Returns:
        uint8 300×1000×3 RGB.

    Raises:
        ValueError: no frames, or not one time for each score.
    """
    times, values = np.asarray(seconds, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(values) or len(values) != len(times):
        raise ValueError(f"a timeline needs a time for each score, not {len(times)} for {len(values)}")
    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI, facecolor=_fraction(BACKGROUND))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.055, 0.14, 0.925, 0.7), facecolor=_fraction(BACKGROUND))
    # Parsed as text, not as TeX: file names hold dollar signs.
    figure.text(0.01, 0.92, title, color=_fraction(INK), fontsize=12, parse_math=False, va="center")
    axes.axhline(threshold, color=_fraction(INK), linewidth=0.8)
    scored = ~np.isnan(values)
    _draw_scores(axes, times[scored], values[scored], threshold)
    axes.set(ylim=(-0.02, 1.02), yticks=sorted({0.0, threshold, 1.0}))
    if times[0] < times[-1]:
        axes.set_xlim(times[0], times[-1])
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.tick_params(colors=_fraction(FAINT), labelsize=9)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=_fraction(FAINT))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_scores(axes: Axes, times: np.ndarray, values: np.ndarray, threshold: float) -> None:
    """A line through all scores in two colors that meet at the threshold; a single score is a dot."""
    if len(times) <= 1:
        for time, value in zip(times, values, strict=True):
            axes.plot(time, value, "o", color=_color(value, threshold), markersize=6)
        return
    times, values = _with_crossings(times, values, threshold)
    points = np.stack([times, values], axis=1)
    middles = (values[:-1] + values[1:]) / 2
    colors = [_color(value, threshold) for value in middles]
    segments = list(np.stack([points[:-1], points[1:]], axis=1))
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=2))


def _with_crossings(times: np.ndarray, values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and values with a point added wherever the line crosses the threshold."""
    before = np.flatnonzero((values[:-1] > threshold) != (values[1:] > threshold))
    share = (threshold - values[before]) / (values[before + 1] - values[before])
    crossing = times[before] + share * (times[before + 1] - times[before])
    return np.insert(times, before + 1, crossing), np.insert(values, before + 1, threshold)


def _color(score: float, threshold: float) -> Color:
    return _fraction(FORGED if score > threshold else GREEN)


def _fraction(color: tuple[int, int, int]) -> Color:
    red, green, blue = (value / 255 for value in color)
    return red, green, blue
