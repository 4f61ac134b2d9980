"""Showing a prediction: the image, the forged pixels, the forgery map, and what it all says.

Panels are scaled so that text keeps its size: small images are enlarged, large ones shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image, ImageDraw, ImageFont

from ddl_d2.inference.summary import PredictionSummary, decide, forgery_map_of, summarize
from ddl_d2.predictions.verdict import INCONCLUSIVE, NO_FACE, says_forged

FORGED, _OUTLINE = (230, 30, 60), (255, 225, 60)
BACKGROUND, INK, FAINT = (24, 24, 28), (240, 240, 240), (170, 170, 175)
GREEN = (70, 200, 110)
_COLOUR_MAP = "inferno"
_PANEL_LONG, _PANEL_SHORT = 800, 320  # the longer side of a panel is kept between these, pixels
_GAP, _BAR_WIDTH, _TITLE, _CAPTION = 8, 14, 26, 38
_LARGE, _SMALL = 18, 15  # font sizes
_MAX_BOXES = 20


def write_in_corner(image: np.ndarray, text: str, color: tuple[int, int, int]) -> None:
    """Write white text on a colored ground into the upper left corner of an image (uint8 H×W×3 RGB), in place."""
    scale = max(0.35, min(image.shape[:2]) / 700)
    thickness = max(1, round(2 * scale))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(2, round(6 * scale))
    cv2.rectangle(image, (0, 0), (width + 2 * pad, height + base + 2 * pad), color, -1)
    place = (pad, pad + height)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA)


def draw_prediction(
    image: np.ndarray,
    prediction: Mapping[str, Any],
    threshold: float = 0.5,
    *,
    map_threshold: float = 0.5,
    title: str = "",
    summary: PredictionSummary | None = None,
) -> np.ndarray:
    """One figure of a prediction: image | forged pixels | forgery map with its scale, and a caption.

    Args:
        image: uint8 H×W×3 RGB, the original image.
        prediction: the model's output for it: `fake_score`, `forgery_map` H×W, and optionally `instances`.
        threshold: the verdict is "fake" above it.
        map_threshold: a pixel is drawn as forged above it.
        title: shown in the caption, for instance the file's name.
        summary: what to say of it; None: `summarize` by these thresholds, uncalibrated.

    Returns:
        uint8 H'×W'×3 RGB. Panels stand side by side, or on top of each other if the image is wide. Of an image in
        which a model of faces found none there is only the image: its map says nothing.

    Raises:
        ValueError: image and map are not of one size.
    """
    forgery_map = forgery_map_of(prediction)
    if forgery_map.shape != image.shape[:2]:
        raise ValueError(f"an image of {image.shape[:2]} cannot be drawn with a forgery map of {forgery_map.shape}")
    summary = summary or summarize(prediction, threshold, map_threshold)
    size, factor = _panel_size(image.shape[1], image.shape[0])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    shown = cv2.resize(image, size, interpolation=way)
    if summary.verdict == NO_FACE:
        return _lay_out([("image", shown)], caption_of(summary), title, color=FAINT, marks=())
    small_map = np.clip(cv2.resize(forgery_map, size, interpolation=cv2.INTER_LINEAR), 0, 1)
    boxes = _instance_boxes(prediction.get("instances"), threshold)
    fake = says_forged(summary.verdict)
    panels = [
        ("image", shown),
        (
            f"forged pixels (map > {map_threshold:g})" if fake else f"map > {map_threshold:g}",
            _draw_forged(shown, small_map > map_threshold, boxes, size, image),
        ),
        ("forgery map", _draw_map(shown, small_map)),
    ]
    color = _color_of(summary.verdict)
    return _lay_out(panels, caption_of(summary), title, color=color, marks=(0.0, map_threshold, 1.0))


def draw_heat_map(
    image: np.ndarray,
    prediction: Mapping[str, Any],
    threshold: float = 0.5,
    *,
    title: str = "",
    summary: PredictionSummary | None = None,
) -> np.ndarray:
    """One figure of what a score rests on: image | heat map with its scale, and a caption.

    Args:
        image: uint8 H×W×3 RGB, the original image.
        prediction: with `fake_score` and `heat_map`, H×W in [0, 1] (`gradcam.predict_with_heat_map`).
        threshold: the verdict is "fake" above it.
        title: shown in the caption.
        summary: as `draw_prediction`'s.

    Returns:
        uint8 H'×W'×3 RGB, laid out as `draw_prediction`'s.

    Raises:
        ValueError: image and map are not of one size.
    """
    heat = prediction["heat_map"]
    heat = np.asarray(heat.detach().cpu() if hasattr(heat, "detach") else heat, dtype=np.float32)
    if heat.shape != image.shape[:2]:
        raise ValueError(f"an image of {image.shape[:2]} cannot be drawn with a heat map of {heat.shape}")
    size, factor = _panel_size(image.shape[1], image.shape[0])
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    small = np.clip(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), 0, 1)
    score = float(prediction["fake_score"])
    verdict, ratio = (decide(score, threshold).label, None) if summary is None else (summary.verdict, summary.log10_lr)
    panels = [("image", shown), ("evidence for a fake (Grad-CAM++)", _draw_heat(shown, small))]
    text = f"{verdict.upper()}   {_score_text(score, threshold, ratio)}"
    return _lay_out(panels, text, title, color=_color_of(verdict), marks=(0.0, 1.0))


def tint_forged(image: np.ndarray, forged: np.ndarray, *, alpha: float = 0.4) -> np.ndarray:
    """`image` (uint8 H×W×3 RGB) with the pixels of `forged` (bool H×W) tinted and outlined; returns a new array."""
    tinted = image.copy()
    tint = np.array(FORGED, np.float32)
    tinted[forged] = np.rint(image[forged] * (1 - alpha) + tint * alpha).astype(np.uint8)
    contours, _ = cv2.findContours(forged.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tinted, contours, -1, _OUTLINE, thickness=max(1, round(min(forged.shape) / 240)))
    return tinted


def caption_of(summary: PredictionSummary) -> str:
    """One line: verdict, score, threshold, and the share of the pixels above the map's threshold."""
    if summary.verdict == NO_FACE:
        return "NO FACE FOUND   so a model of faces says nothing"
    share = 100 * summary.forged_share
    what = "forged" if says_forged(summary.verdict) else f"map above {summary.map_threshold:g} in"
    score = _score_text(summary.score, summary.threshold, summary.log10_lr)
    return f"{summary.verdict.upper()}   {score}   {what} {share:.1f} % of the pixels"


def _score_text(score: float, threshold: float, log10_lr: float | None) -> str:
    """The score, and what it is judged by."""
    by = f"threshold {threshold:g}" if log10_lr is None else f"log10 LR {log10_lr:+.2f}"
    return f"score {score:.3f} ({by})"


def _color_of(verdict: str) -> tuple[int, int, int]:
    """Red for forged, green for not, gray for no verdict."""
    return FORGED if says_forged(verdict) else FAINT if verdict in (INCONCLUSIVE, NO_FACE) else GREEN


def _panel_size(width: int, height: int) -> tuple[tuple[int, int], float]:
    """((W, H) of a panel, factor by which the image is scaled)."""
    longest = max(width, height)
    factor = min(max(1.0, _PANEL_SHORT / longest), _PANEL_LONG / longest)
    return (max(1, round(width * factor)), max(1, round(height * factor))), factor


def _instance_boxes(instances: Instances | None, threshold: float) -> list[tuple[np.ndarray, str]]:
    """(x0, y0, x1, y1 and label) of the confident instances that have pixels, surest first."""
    if instances is None or not (instances.has("pred_masks") and instances.has("scores")):
        return []
    found: list[tuple[np.ndarray, str]] = []
    for i in instances.scores.argsort(descending=True).tolist():
        score = float(instances.scores[i])
        if score <= threshold or len(found) == _MAX_BOXES:
            break
        mask = instances.pred_masks[i].detach().cpu().numpy() > 0.5
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size:
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
            found.append((box, f"{score:.2f}"))
    return found


def _draw_forged(
    shown: np.ndarray,
    forged: np.ndarray,
    boxes: Sequence[tuple[np.ndarray, str]],
    size: tuple[int, int],
    image: np.ndarray,
) -> np.ndarray:
    """The middle panel, drawn with Detectron2's Visualizer."""
    visualizer = Visualizer(shown, Metadata(), instance_mode=ColorMode.IMAGE)
    fill, edge = (tuple(value / 255 for value in tint) for tint in (FORGED, _OUTLINE))
    if forged.any():
        visualizer.draw_binary_mask(forged.astype(np.uint8), color=fill, edge_color=edge, alpha=0.4, area_threshold=0)
    scale = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2)
    for box, label in boxes:
        scaled = box * scale
        visualizer.draw_box(scaled, alpha=0.9, edge_color="white")
        visualizer.draw_text(label, (scaled[0], scaled[1]), color="white", horizontal_alignment="left", font_size=9)
    drawn = visualizer.get_output().get_image()
    return np.ascontiguousarray(drawn[: shown.shape[0], : shown.shape[1]])


def _draw_heat(shown: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image with the heat map in colors over it, the more opaque the hotter: cold parts stay as they are."""
    colors = 255 * mpl.colormaps[_COLOUR_MAP](heat)[..., :3]
    opacity = (0.15 + 0.6 * heat)[..., None]
    return np.clip(np.rint((1 - opacity) * shown + opacity * colors), 0, 255).astype(np.uint8)


def _draw_map(shown: np.ndarray, forgery_map: np.ndarray) -> np.ndarray:
    """The map in colors over a faint gray image."""
    heat = 255 * mpl.colormaps[_COLOUR_MAP](forgery_map)[..., :3]
    gray = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY).astype(np.float64)[..., None]
    return np.clip(np.rint(0.8 * heat + 0.2 * gray), 0, 255).astype(np.uint8)


def _lay_out(
    panels: Sequence[tuple[str, np.ndarray]],
    caption: str,
    title: str,
    *,
    color: tuple[int, int, int],
    marks: Sequence[float],
) -> np.ndarray:
    """Panels under a line of `color` and a caption, with the scale of a map if it has `marks`."""
    height, width = panels[0][1].shape[:2]
    stacked = width > 2 * height
    cell_w, cell_h = max(width, 200), height + _TITLE
    bar_height = min(max(height, 60), 500)
    columns, rows = (1, len(panels)) if stacked else (len(panels), 1)
    total_w = max(columns * (cell_w + _GAP) + _GAP + _BAR_WIDTH + 44, 560)
    total_h = rows * (cell_h + _GAP) + _GAP + _CAPTION + max(0, bar_height - height)
    canvas = Image.new("RGB", (total_w, total_h), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for i, (name, panel) in enumerate(panels):
        x = _GAP + (0 if stacked else i * (cell_w + _GAP))
        y = _CAPTION + (i * (cell_h + _GAP) if stacked else 0)
        draw.text((x, y + 3), name, fill=FAINT, font=font(_SMALL))
        canvas.paste(Image.fromarray(panel), (x, y + _TITLE))
    if marks:
        _draw_bar(canvas, draw, x + cell_w + _GAP, y + _TITLE, bar_height, marks)
    draw.rectangle((0, 0, total_w, 4), fill=color)
    text = caption + (f"   {title}" if title else "")
    draw.text((_GAP, 10), fitting(draw, text, total_w - 2 * _GAP), fill=INK, font=font(_LARGE))
    return np.asarray(canvas)


def _draw_bar(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, height: int, marks: Sequence[float]
) -> None:
    """The map's scale, 1 at the top, with some values marked."""
    values = np.linspace(1, 0, height)[:, None].repeat(_BAR_WIDTH, 1)
    canvas.paste(Image.fromarray((255 * mpl.colormaps[_COLOUR_MAP](values)[..., :3]).astype(np.uint8)), (x, y))
    for value in marks:
        at = y + round((1 - value) * (height - 1))
        draw.line((x, at, x + _BAR_WIDTH + 3, at), fill=INK)
        draw.text((x + _BAR_WIDTH + 5, at), f"{value:g}", fill=FAINT, font=font(_SMALL), anchor="lm")


def fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """`text`, cut with an ellipsis if it is wider than `width`."""
    if draw.textlength(text, font=font(_LARGE)) <= width:
        return text
    while text and draw.textlength(text + "…", font=font(_LARGE)) > width:
        text = text[:-1]
    return text + "…"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that matplotlib brings along."""
    return ImageFont.truetype(mpl.get_data_path() + "/fonts/ttf/DejaVuSans.ttf", size)
