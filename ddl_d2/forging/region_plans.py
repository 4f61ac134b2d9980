"""Drawing what is to be done to the regions of a face, all of it before a pixel changes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddl_d2.config.forgery_options import ForgeryOptions, IntRange, Range
from ddl_d2.faces.face import Face
from ddl_d2.forging.appearance import Step, draw_color_steps, drawn
from ddl_d2.forging.regions import FEATURES, REGIONS
from ddl_d2.forging.soft_mask import Elastic, Mosaic, Softening, face_square_side
from ddl_d2.forging.warp import Displacement, Drag, Scale, moved_points

_AREA_OF = {"nose": "nose_area", "mouth": "mouth_area", "face": "face_area", "lower_face": "face_area"}
# A face of 60 pixels at a quarter of its resolution is a smear that no forger would leave.
_NARROWEST_AFTER_DOWNSCALE, _LEAST_DOWNSCALE = 32.0, 1.25


@dataclass(frozen=True)
class RegionPlan:
    """What is to be done to one region of a face.

    Attributes:
        region: a key of `REGIONS`.
        area_factor: by which its area is scaled.
        forehead: how far it reaches above the brows, see `region_polygons`.
        displacements: of the target, pixels of the image.
        appearance: steps that change the target, see `apply_steps`.
        softening: how the mask is made soft, raster pixels.
        ratio: weight of the target inside the mask, in (0, 1].
    """

    region: str
    area_factor: float
    forehead: float
    displacements: tuple[Displacement, ...]
    appearance: tuple[Step, ...]
    softening: Softening
    ratio: float

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        moves = [{"kind": type(move).__name__.lower(), **asdict(move)} for move in self.displacements]
        return {**asdict(self), "displacements": moves, "appearance": list(self.appearance)}


def draw_face(
    face: Face, rng: np.random.Generator, options: ForgeryOptions, *, appearance: bool = True
) -> list[RegionPlan]:
    """Draw which regions of a face are forged, and how; without `appearance` the target keeps its looks."""
    if face.width < options.min_width_for_parts or rng.random() < options.whole_face_prob:
        regions = ["face"]
    else:
        regions = _draw_parts(rng, options)
    return [draw_region(face, region, rng, options, appearance=appearance) for region in regions]


def draw_region(
    face: Face, region: str, rng: np.random.Generator, options: ForgeryOptions, *, appearance: bool = True
) -> RegionPlan:
    """Draw how `region` (a key of `REGIONS`) of a face is forged."""
    forehead = region == "face" and rng.random() < options.forehead_prob
    return RegionPlan(
        region=region,
        area_factor=drawn(rng, getattr(options, _AREA_OF.get(region, "eyes_area"))),
        forehead=drawn(rng, options.forehead) if forehead else 0.0,
        displacements=tuple(_draw_displacements(face, region, rng, options)),
        appearance=tuple(draw_appearance(face.width, rng, options)) if appearance else (),
        softening=_draw_softening(rng, options),
        ratio=float(options.ratios[int(rng.integers(len(options.ratios)))]),
    )


def _draw_parts(rng: np.random.Generator, options: ForgeryOptions) -> list[str]:
    """Draw parts of a face that do not overlap; eyes, nose and mouth are as likely, however many parts show them."""
    regions: list[str] = []
    left = list(options.parts)
    for _ in range(_whole(rng, options.part_count)):
        if not left:
            break
        features = sorted({FEATURES[name][0] for name in left})
        feature = features[int(rng.integers(len(features)))]
        showing = [name for name in left if FEATURES[name][0] == feature]
        regions.append(showing[int(rng.integers(len(showing)))])
        left = [name for name in left if not set(FEATURES[name]) & set(FEATURES[regions[-1]])]
    return regions


def _draw_displacements(
    face: Face, region: str, rng: np.random.Generator, options: ForgeryOptions
) -> list[Displacement]:
    points = face.landmarks[[index for hull in REGIONS[region] for index in hull]]
    moves: list[Displacement] = []
    if rng.random() < options.move_prob:
        x, y = (round(float(v), 2) for v in points.mean(0))
        side = face_square_side(face.landmarks)
        shift = (round(drawn(rng, options.shift_x) * side, 3), round(drawn(rng, options.shift_y) * side, 3))
        scale = Scale((x, y), drawn(rng, options.scale), shift)
        moves.append(scale)
        points = moved_points(points, scale)  # a drag acts on what has moved
    for _ in range(_whole(rng, options.drag_count)):
        x, y = (round(float(v), 2) for v in points[int(rng.integers(len(points)))])
        radius = round(drawn(rng, options.drag_radius) * face.width, 3)
        length, angle = radius * float(rng.uniform(*options.drag_length)), float(rng.uniform(0, 2 * np.pi))
        target = (round(x + length * float(np.cos(angle)), 3), round(y + length * float(np.sin(angle)), 3))
        moves.append(Drag((x, y), target, radius))
    return moves


def _draw_softening(rng: np.random.Generator, options: ForgeryOptions) -> Softening:
    elastic = mosaic = None
    if rng.random() < options.elastic_prob:
        elastic = Elastic(options.elastic_alpha, options.elastic_sigma, int(rng.integers(2**31)))
    if rng.random() < options.mosaic_prob:
        angle, opacity = drawn(rng, options.mosaic_angle), drawn(rng, options.mosaic_opacity)
        mosaic = Mosaic(_whole(rng, options.mosaic_cell), angle, opacity)
    return Softening(
        raster=_whole(rng, options.raster),
        erode=_odd(rng, options.erode_kernel),
        blur=_odd(rng, options.blur_kernel),
        blur_sigma=drawn(rng, options.blur_sigma),
        elastic=elastic,
        mosaic=mosaic,
    )


def draw_appearance(width: float, rng: np.random.Generator, options: ForgeryOptions) -> list[Step]:
    """Draw a change of color and frequency for a face of `width` pixels."""
    steps = draw_color_steps(rng, options)
    if rng.random() < options.frequency_prob:
        steps.append(_draw_frequency(width, rng, options))
    if rng.random() < options.noise_prob:
        seed, grain = int(rng.integers(2**31)), drawn(rng, (0.0, 0.8))
        steps.append({"name": "noise", "sigma": drawn(rng, options.noise), "seed": seed, "grain": grain})
    if rng.random() < options.jpeg_prob:
        steps.append({"name": "jpeg", "quality": _whole(rng, options.jpeg_quality)})
    return steps


def _draw_frequency(width: float, rng: np.random.Generator, options: ForgeryOptions) -> Step:
    kind = options.frequency[int(rng.integers(len(options.frequency)))]
    if kind == "downscale":
        by = float(options.downscale[int(rng.integers(len(options.downscale)))])
        by = min(by, max(width / _NARROWEST_AFTER_DOWNSCALE, _LEAST_DOWNSCALE))
        return {"name": "rescale", "factor": round(1 / by, 4)}
    if kind == "sharpen":
        alpha, lightness = drawn(rng, options.sharpen_alpha), drawn(rng, options.sharpen_lightness)
        return {"name": "edge_sharpen", "alpha": alpha, "lightness": lightness}
    return {"name": "blur", "sigma": round(max(0.8, drawn(rng, options.blur_width) * width), 3)}


def _whole(rng: np.random.Generator, limits: Range | IntRange) -> int:
    return int(rng.integers(int(limits[0]), int(limits[1]) + 1))


def _odd(rng: np.random.Generator, limits: Range | IntRange) -> int:
    """An odd number of a range; the next larger one where the range holds none."""
    return 2 * int(rng.integers(int(limits[0]) // 2, max(int(limits[1]) - 1, int(limits[0])) // 2 + 1)) + 1
