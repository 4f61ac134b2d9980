"""Self-blending: forging the faces of a real image with nothing but the image itself.

Source and target are copies of the image. One of them changes its appearance; the target is displaced around a
region of a face and blended into the source through the region's soft mask: O = target · M + source · (1 - M). One
region after the other, one face after the other. Everything random is drawn first, from `ForgeryOptions` and the
caller's generator, and kept in a record; the rest is a function of the image and what was drawn.

Sources: multi-part local-displacement self-blending (Sci. Rep. 2025) for regions, area factors and drags;
self-blended images (SBI, CVPR 2022) for appearance, global moves, elastic deformation and the soft mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddl_d2.config.forgery_options import ForgeryOptions, IntRange, Range
from ddl_d2.faces.face import NUM_LANDMARKS, Face
from ddl_d2.forging.appearance import Step, apply_steps, draw_color_steps, drawn
from ddl_d2.forging.blend import blend
from ddl_d2.forging.regions import REGIONS, region_polygons
from ddl_d2.forging.soft_mask import Elastic, Mosaic, Softening, face_square_side, region_box, soft_region_mask
from ddl_d2.forging.warp import Box, Displacement, Drag, Scale, sample, sampled_box, sampling_maps

_AREA_OF = {"nose": "nose_area", "mouth": "mouth_area", "face": "face_area", "lower_face": "face_area"}
# A face of 60 pixels at a quarter of its resolution is a smear that no forger would leave.
_NARROWEST_AFTER_DOWNSCALE, _LEAST_DOWNSCALE = 32.0, 1.25


class NoSuitableFaceError(ValueError):
    """The image has no face that is wide enough and inside the image."""


@dataclass(frozen=True)
class Forgery:
    """A forged image and its real partner.

    Attributes:
        image: uint8 H×W×3 RGB; bit for bit `real` where `soft` is 0.
        real: uint8 H×W×3 RGB, the source: the untouched input (not a copy), or the input after
            `record["source_appearance"]` where the appearance was given to the source. Train on this one as the real
            partner: against the untouched input, a change of the whole image would give every such forgery away.
        soft: float32 H×W in [0, 1], the union (maximum) of the regions' soft masks, before their ratios: what to
            train on.
        mask: bool H×W, True = forged: `soft` above one half, never empty; what to evaluate on.
        record: everything that was drawn, plain values for JSON.
    """

    image: np.ndarray
    real: np.ndarray
    soft: np.ndarray
    mask: np.ndarray
    record: dict[str, Any]


@dataclass(frozen=True)
class RegionPlan:
    """What is to be done to one region of a face.

    Attributes:
        region: a key of `REGIONS`.
        area_factor: by which its area is scaled.
        displacements: of the target, pixels of the image.
        appearance: steps that change the target, see `apply_steps`.
        softening: how the mask is made soft, raster pixels.
        ratio: weight of the target inside the mask, in (0, 1].
    """

    region: str
    area_factor: float
    displacements: tuple[Displacement, ...]
    appearance: tuple[Step, ...]
    softening: Softening
    ratio: float

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        moves = [{"kind": type(move).__name__.lower(), **asdict(move)} for move in self.displacements]
        return {**asdict(self), "displacements": moves, "appearance": list(self.appearance)}


@dataclass(frozen=True)
class RegionStages:
    """What became of one region, each array of the size of `box`; for looking at.

    Attributes:
        box: where in the image.
        changed: uint8 h×w×3, the target after its appearance.
        warped: the same after its displacements.
        hard: bool h×w, the mask before softening.
        soft: float32 h×w, the mask after it.
    """

    box: Box
    changed: np.ndarray
    warped: np.ndarray
    hard: np.ndarray
    soft: np.ndarray


def self_blend(
    image: np.ndarray, faces: Sequence[Face], rng: np.random.Generator, options: ForgeryOptions | None = None
) -> Forgery:
    """Forge some of the faces of a real image, each in its own way, by blending the image with itself.

    Args:
        image: uint8 H×W×3 RGB; not changed.
        faces: its faces, with 68 landmarks each.
        rng: the only source of randomness; its state advances.
        options: what to draw from.

    Returns:
        The same bytes for the same image, faces, options and state of `rng`.

    Raises:
        NoSuitableFaceError: no face is wide enough and inside the image, or (rarely, at an edge) no region drawn is.
        ValueError: the image is not uint8 H×W×3, or a face has no 68 landmarks.
    """
    options = options or ForgeryOptions()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"self_blend takes a uint8 H×W×3 image, not {image.dtype} {image.shape}")
    for face in faces:
        if face.landmarks.shape != (NUM_LANDMARKS, 2):
            raise ValueError(
                f"a face has {len(face.landmarks)} landmarks; masking its regions needs {NUM_LANDMARKS} "
                "(dlib's landmark model places them)"
            )
    suitable = [i for i, face in enumerate(faces) if _suits(face, image.shape[:2], options)]
    if not suitable:
        raise NoSuitableFaceError(f"none of {len(faces)} faces is in the image and {options.min_face_width:g} px wide")
    chosen = {i for i in suitable if rng.random() < options.face_prob} or {suitable[int(rng.integers(len(suitable)))]}
    weights = np.asarray(options.appearance_weights, np.float64)
    side = ("source", "target", "both")[int(rng.choice(3, p=weights / weights.sum()))]
    widest = max(faces[i].width for i in chosen)
    source_steps = draw_appearance(widest, rng, options) if side != "target" else []
    plans = [
        draw_face(face, rng, options, appearance=side != "source") if i in chosen else []
        for i, face in enumerate(faces)
    ]

    image = np.ascontiguousarray(image)  # OpenCV takes no mirrored views
    real = apply_steps(image, source_steps)
    forged, soft = real.copy(), np.zeros(image.shape[:2], np.float32)
    records = []
    for face, regions in zip(faces, plans, strict=True):
        done = [plan for plan in regions if _forge_region(forged, soft, image, face, plan)]
        box = [round(float(v), 1) for v in face.box]
        records.append({"box": box, "forged": bool(done), "regions": [plan.record() for plan in done]})
    if not any(face["forged"] for face in records):
        raise NoSuitableFaceError("the regions drawn lie outside the image")
    record = {"appearance_of": side, "source_appearance": source_steps, "faces": records}
    return Forgery(image=forged, real=real, soft=soft, mask=soft > 0.5, record=record)


def region_stages(image: np.ndarray, face: Face, plan: RegionPlan) -> RegionStages | None:
    """Make the target and the masks of one region.

    Args:
        image: uint8 H×W×3 RGB, the image that the target is made from.
        face: whose region it is.
        plan: what is done to it.

    Returns:
        None if the region lies outside the image.
    """
    polygons = region_polygons(face.landmarks, plan.region, area_factor=plan.area_factor)
    side = face_square_side(face.landmarks)
    box = region_box(polygons, plan.softening, side=side, shape=image.shape[:2])
    if box is None:
        return None
    hard, soft = soft_region_mask(polygons, plan.softening, box=box, side=side)
    maps = sampling_maps(box, plan.displacements)
    # appearance first: the displacement then moves its traces, too
    left, top, right, bottom = _union(sampled_box(maps, image.shape[:2]), box)
    changed = apply_steps(image[top:bottom, left:right], plan.appearance)
    warped = sample(changed, maps, origin=(left, top))
    return RegionStages(box, changed[_rows_and_columns(box, left, top)], warped, hard, soft)


def _forge_region(forged: np.ndarray, soft: np.ndarray, image: np.ndarray, face: Face, plan: RegionPlan) -> bool:
    """Forge one region in place, in `forged` and the running `soft` mask; False, and nothing done, if it is outside."""
    stages = region_stages(image, face, plan)
    if stages is None or not (stages.soft > 0.5).any():
        return False
    inside = _rows_and_columns(stages.box)
    forged[inside] = blend(forged[inside], stages.warped, stages.soft * np.float32(plan.ratio))
    np.maximum(soft[inside], stages.soft, out=soft[inside])
    return True


def _union(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _rows_and_columns(box: Box, x: int = 0, y: int = 0) -> tuple[slice, slice]:
    """Slices for a box of an array whose first pixel is at (x, y)."""
    return slice(box[1] - y, box[3] - y), slice(box[0] - x, box[2] - x)


def _suits(face: Face, shape: tuple[int, int], options: ForgeryOptions) -> bool:
    inside = ((face.landmarks >= 0) & (face.landmarks < (shape[1], shape[0]))).all(1).mean()
    return face.width >= options.min_face_width and bool(inside >= 0.75)


def draw_face(
    face: Face, rng: np.random.Generator, options: ForgeryOptions, *, appearance: bool = True
) -> list[RegionPlan]:
    """Draw which regions of a face are forged, and how; without `appearance` the target keeps its looks."""
    if face.width < options.min_width_for_parts or rng.random() < options.whole_face_prob:
        regions = ["face"]
    else:
        number = min(_whole(rng, options.part_count), len(options.parts))
        regions = [str(name) for name in rng.choice(options.parts, size=number, replace=False)]
    return [draw_region(face, region, rng, options, appearance=appearance) for region in regions]


def draw_region(
    face: Face, region: str, rng: np.random.Generator, options: ForgeryOptions, *, appearance: bool = True
) -> RegionPlan:
    """Draw how `region` (a key of `REGIONS`) of a face is forged."""
    return RegionPlan(
        region=region,
        area_factor=drawn(rng, getattr(options, _AREA_OF.get(region, "eyes_area"))),
        displacements=tuple(_draw_displacements(face, region, rng, options)),
        appearance=tuple(draw_appearance(face.width, rng, options)) if appearance else (),
        softening=_draw_softening(rng, options),
        ratio=float(options.ratios[int(rng.integers(len(options.ratios)))]),
    )


def _draw_displacements(
    face: Face, region: str, rng: np.random.Generator, options: ForgeryOptions
) -> list[Displacement]:
    indices = [index for hull in REGIONS[region] for index in hull]
    moves: list[Displacement] = []
    if rng.random() < options.move_prob:
        x, y = (round(float(v), 2) for v in face.landmarks[indices].mean(0))
        side = face_square_side(face.landmarks)
        shift = (round(drawn(rng, options.shift_x) * side, 3), round(drawn(rng, options.shift_y) * side, 3))
        moves.append(Scale((x, y), drawn(rng, options.scale), shift))
    for _ in range(_whole(rng, options.drag_count)):
        x, y = (round(float(v), 2) for v in face.landmarks[indices[int(rng.integers(len(indices)))]])
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
