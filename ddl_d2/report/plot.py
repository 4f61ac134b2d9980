"""Plots as inline SVG: they take the colors of the page, and each line has its own dashes, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddl_d2.report.html import escape

STYLES = 6
"""How many lines look unlike: the style sheet has so many colors and patterns of dashes."""

_WIDTH, _HEIGHT = 420, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 10, 408, 258
_SLICES = 300
"""Into how many upright slices a line is cut when it is thinned: about one for each pixel of a small screen."""


class Line(NamedTuple):
    """A line of a plot.

    Attributes:
        name: what the legend calls it.
        x: its places, 0..1, not falling.
        y: its values.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def thinned(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out points of a line that cannot be seen.

    Of each of 300 equal slices of 0..1 the first, the last, the lowest and the highest point stay: drawn at that many
    pixels the line is the same (M4; Jugel et al., VLDB 2014). Figures are never computed from what is left.

    Args:
        x: (N,) places in 0..1, not falling.
        y: (N,) values.

    Returns:
        Places and values of at most 4 · 301 points.
    """
    places, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(places) <= 4 * _SLICES:
        return places, values
    slices = np.floor(places * _SLICES).astype(np.int64)
    starts = np.flatnonzero(np.diff(slices, prepend=-1))
    by_value = np.lexsort((values, slices))
    ends = np.append(starts[1:], len(places)) - 1
    kept = np.unique(np.concatenate([starts, ends, by_value[starts], by_value[ends]]))
    return places[kept], values[kept]


def plot(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    description: str,
    top: float = 1.0,
    diagonal: bool = False,
    at: float | None = None,
) -> str:
    """Draw lines over 0..1 as a figure of a page, with a legend.

    Args:
        title: above it.
        lines: at most `STYLES` of them look unlike.
        x_label: what 0..1 is.
        y_label: what the values are.
        description: what the plot shows, in words and figures, for those who cannot see it.
        top: of the values; the axis begins at 0.
        diagonal: whether to draw the line of chance.
        at: where to draw an upright line.
    """

    def place(x: float, y: float) -> str:
        return f"{_LEFT + x * (_RIGHT - _LEFT):.1f},{_BOTTOM - y / top * (_BOTTOM - _TOP):.1f}"

    parts = [_axes(top)]
    if diagonal:
        parts.append(f'<polyline class="chance" points="{place(0, 0)} {place(1, top)}"/>')
    if at is not None:
        parts.append(f'<polyline class="at" points="{place(at, 0)} {place(at, top)}"/>')
    for number, line in enumerate(lines):
        points = " ".join(map(place, *thinned(line.x, line.y)))
        parts.append(f'<polyline class="line style{number % STYLES}" points="{points}"/>')
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(description)}">{"".join(parts)}'
    legend = "".join(
        f'<li><svg viewBox="0 0 36 10" width="36" height="10" aria-hidden="true">'
        f'<polyline class="line style{number % STYLES}" points="0,5 36,5"/></svg> {escape(line.name)}</li>'
        for number, line in enumerate(lines)
    )
    return (
        f'<figure class="plot"><h3>{escape(title)}</h3><p class="faint">{escape(y_label)}</p>'
        f'{drawing}</svg><ul class="legend">{legend}</ul></figure>'
    )


def _axes(top: float) -> str:
    """The frame, five lines across, and the numbers beside them."""
    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}"/>']
    for number in range(5):
        share = number / 4
        x, y = _LEFT + share * (_RIGHT - _LEFT), _BOTTOM - share * (_BOTTOM - _TOP)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{share:g}</text>')
    return "".join(parts)
