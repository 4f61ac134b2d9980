"""What is said of a video, over its time, as one drawing.

From top to bottom: a title, small frames, the spectrum of the sound, the curves of scores, and bars of forged segments,
predicted and true; each as far as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ddl_d2.inference.overlay import BACKGROUND, FAINT, FORGED, GREEN, INK

_WIDTH, _DPI = 1000, 100
_LEFT, _RIGHT = 55, 20  # pixels beside the tracks
_TITLE, _CURVES, _AXIS = 48, 210, 42
_FRAMES, _SOUND, _BAR, _GAP = 96, 90, 22, 6
THUMBNAIL_HEIGHT = _FRAMES
CURVE_COLORS = ((90, 170, 255), (255, 180, 60))
TRUTH = (250, 250, 120)
_FAINTEST = 0.15  # how strong the least sure segment is drawn
_EMPTY = (40, 40, 46)
Color = tuple[float, float, float]
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """What a video shows and sounds like, small enough to be kept for a drawing.

    Attributes:
        duration: seconds; 0 for as long as the scores.
        thumbnails: (seconds, uint8 h×w×3 RGB), in order of time.
        sound: float F×C, a spectrum by columns of equal length over `duration`, low frequencies first; None for none.
    """

    duration: float = 0.0
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()
    sound: np.ndarray | None = None


@dataclass(frozen=True)
class Bars:
    """Forged segments of one kind.

    Attributes:
        name: beside the bars.
        segments: float K×3, [confidence, start, end] in seconds; the surer, the stronger they are drawn.
        color: RGB, 0..255.
    """

    name: str
    segments: np.ndarray
    color: tuple[int, int, int] = FORGED


@dataclass
class Thumbnails:
    """Collects small frames, evenly spaced, of a video of unknown length; at most twice as many as are wanted.

    Args:
        most: that are wanted.
    """

    most: int = 12
    kept: list[tuple[float, np.ndarray]] = field(default_factory=list)
    _step: int = 1
    _seen: int = 0

    def add(self, seconds: float, image: np.ndarray) -> None:
        """Look at the next frame (uint8 H×W×3)."""
        if self._seen % self._step == 0:
            width = max(1, round(image.shape[1] * THUMBNAIL_HEIGHT / image.shape[0]))
            small = cv2.resize(image, (width, THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
            self.kept.append((seconds, small))
            if len(self.kept) > 2 * self.most:
                self.kept, self._step = self.kept[::2], 2 * self._step
        self._seen += 1


def draw_timeline(
    seconds: Sequence[float],
    scores: Sequence[float],
    threshold: float = 0.5,
    *,
    title: str = "",
    scene: Scene | None = None,
    bars: Sequence[Bars] = (),
) -> np.ndarray:
    """Draw the scores of a video's frames against time, with the threshold; above the threshold the line is red.

    Args:
        seconds: times of the frames, (F,), F >= 1, ascending.
        scores: one per frame, in [0, 1]; NaN for a frame that has none, which the line passes over.
        threshold: drawn as a line.
        title: shown above.
        scene: what is drawn above the curve.
        bars: drawn below it.

    Returns:
        uint8 H×1000×3 RGB; H is 300 for a curve alone.

    Raises:
        ValueError: no frames, or not one time for each score.
    """
    times, values = np.asarray(seconds, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(values) or len(values) != len(times):
        raise ValueError(f"a timeline needs a time for each score, not {len(times)} for {len(values)}")
    sheet = _Sheet(scene or Scene(), bars, title, (float(times[0]), float(times[-1])))
    scored = ~np.isnan(values)
    _draw_scores(sheet.curves, times[scored], values[scored], threshold)
    return sheet.drawn(threshold)


def draw_clip_timeline(
    curves: Mapping[str, Curve],
    threshold: float = 0.5,
    *,
    title: str = "",
    scene: Scene,
    bars: Sequence[Bars] = (),
) -> np.ndarray:
    """Draw several curves of a clip against time, each in a color of its own that is named.

    Args:
        curves: name -> (times, scores in [0, 1]); at most two.
        threshold: as of `draw_timeline`.
        title: as of `draw_timeline`.
        scene: as of `draw_timeline`.
        bars: as of `draw_timeline`.

    Returns:
        uint8 H×1000×3 RGB.
    """
    sheet = _Sheet(scene, bars, title, (0.0, scene.duration))
    for (name, (times, scores)), color in zip(curves.items(), CURVE_COLORS, strict=False):
        sheet.curves.plot(times, scores, color=_fraction(color), linewidth=1.6, label=name)
    legend = sheet.curves.legend(loc="upper right", fontsize=9, frameon=False)
    for text in legend.get_texts():
        text.set_color(_fraction(INK))
    return sheet.drawn(threshold)


class _Sheet:
    """The figure: its tracks are drawn at once, the curves by whoever has them."""

    def __init__(self, scene: Scene, bars: Sequence[Bars], title: str, span: tuple[float, float]) -> None:
        heights = {
            "frames": _FRAMES if scene.thumbnails else 0,
            "sound": _SOUND if scene.sound is not None else 0,
            "curves": _CURVES,
            "bars": (_BAR + _GAP) * len(bars),
        }
        gaps = _GAP * (bool(heights["frames"]) + bool(heights["sound"]))
        self.height = _TITLE + _AXIS + sum(heights.values()) + gaps
        self.figure = Figure(figsize=(_WIDTH / _DPI, self.height / _DPI), dpi=_DPI, facecolor=_fraction(BACKGROUND))
        self.canvas = FigureCanvasAgg(self.figure)
        self.span = (0.0, scene.duration) if scene.duration else span
        # Parsed as text, not as TeX: file names hold dollar signs.
        self.figure.text(
            0.01, 1 - _TITLE / 2 / self.height, title, color=_fraction(INK), fontsize=12, parse_math=False, va="center"
        )
        top = float(_TITLE)
        if heights["frames"]:
            self._draw_frames(self._track(top, _FRAMES), scene)
            top += _FRAMES + _GAP
        if scene.sound is not None:
            axes = self._track(top, _SOUND)
            axes.imshow(scene.sound, origin="lower", aspect="auto", cmap="magma", extent=(*self.span, 0, 1))
            self._name(axes, "sound")
            top += _SOUND + _GAP
        self.curves = self._track(top, _CURVES)
        top += _CURVES + _GAP
        last = self.curves
        for row in bars:
            last = self._track(top, _BAR)
            self._draw_bars(last, row)
            top += _BAR + _GAP
        last.tick_params(bottom=True, labelbottom=True, colors=_fraction(FAINT), labelsize=9)
        last.xaxis.set_major_formatter("{x:g} s")

    def drawn(self, threshold: float) -> np.ndarray:
        """Finish the curves' track and give the pixels."""
        self.curves.axhline(threshold, color=_fraction(INK), linewidth=0.8)
        self.curves.set(ylim=(-0.02, 1.02), yticks=sorted({0.0, threshold, 1.0}))
        self.curves.yaxis.set_major_formatter("{x:g}")
        self.curves.tick_params(left=True, labelleft=True, colors=_fraction(FAINT), labelsize=9)
        if self.span[0] < self.span[1]:
            self.curves.set_xlim(*self.span)
        for side, spine in self.curves.spines.items():
            spine.set(visible=side in ("left", "bottom"), color=_fraction(FAINT))
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    def _track(self, top: float, height: float) -> Axes:
        """A strip of the figure, `top` pixels from above, over the whole span of time."""
        box = (
            _LEFT / _WIDTH,
            1 - (top + height) / self.height,
            (_WIDTH - _LEFT - _RIGHT) / _WIDTH,
            height / self.height,
        )
        axes = self.figure.add_axes(box, facecolor=_fraction(BACKGROUND))
        axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
        if self.span[0] < self.span[1]:
            axes.set_xlim(*self.span)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def _name(self, axes: Axes, name: str) -> None:
        axes.text(
            -0.008, 0.5, name, transform=axes.transAxes, color=_fraction(FAINT), fontsize=7, ha="right", va="center"
        )

    def _draw_frames(self, axes: Axes, scene: Scene) -> None:
        """As many small frames as fit side by side, each at its time."""
        width = _WIDTH - _LEFT - _RIGHT
        start, end = self.span
        axes.set(xlim=(0, width), ylim=(_FRAMES, 0))
        free = -1.0
        for seconds, image in scene.thumbnails:
            left = (seconds - start) / max(end - start, 1e-9) * width
            left = min(left, width - image.shape[1])
            if left >= free and left >= 0:
                axes.imshow(image, extent=(left, left + image.shape[1], _FRAMES, 0), aspect="auto")
                free = left + image.shape[1] + 2
        axes.set(xlim=(0, width), ylim=(_FRAMES, 0))

    def _draw_bars(self, axes: Axes, row: Bars) -> None:
        axes.set_ylim(0, 1)
        self._name(axes, row.name)
        axes.add_patch(Rectangle((self.span[0], 0), self.span[1] - self.span[0], 1, color=_fraction(_EMPTY)))
        # The surest last, on top; mixed and not transparent, or many unsure ones would add up to a sure one.
        for confidence, start, end in row.segments[np.argsort(row.segments[:, 0], kind="stable")]:
            share = _FAINTEST + (1 - _FAINTEST) * float(np.clip(confidence, 0, 1))
            mixed = tuple(share * full + (1 - share) * empty for full, empty in zip(row.color, _EMPTY, strict=True))
            axes.add_patch(Rectangle((start, 0), end - start, 1, color=[value / 255 for value in mixed], linewidth=0))


def runs_above(seconds: Sequence[float], scores: Sequence[float], threshold: float) -> np.ndarray:
    """Find when scores are above a threshold: float K×3, [their mean, start, end], in order of time.

    A frame lasts until the next; the last one as long as the one before.
    """
    times, values = np.asarray(seconds, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    above = np.concatenate([[False], values > threshold, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
    step = float(times[-1] - times[-2]) if len(times) > 1 else 0.0
    ends = np.append(times, times[-1:] + step)
    return np.array([[values[a:b].mean(), times[a], ends[b]] for a, b in edges]).reshape(-1, 3)


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
