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
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.faces.face import NUM_LANDMARKS, Face
from ddl_d2.forging.appearance import apply_steps
from ddl_d2.forging.blend import blend
from ddl_d2.forging.moved_outline import moved_outline
from ddl_d2.forging.region_plans import RegionPlan, draw_appearance, draw_face
from ddl_d2.forging.regions import region_polygons
from ddl_d2.forging.soft_mask import face_square_side, region_box, soft_region_mask
from ddl_d2.forging.warp import Box, sample, sampled_box, sampling_maps


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
    suitable = suitable_faces(faces, image.shape[:2], options)
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


def suitable_faces(faces: Sequence[Face], shape: tuple[int, int], options: ForgeryOptions) -> list[int]:
    """Return which faces of an image of a shape (height, width) are fit to be forged, by their place in `faces`.

    Raises:
        NoSuitableFaceError: none is.
    """
    suitable = [i for i, face in enumerate(faces) if _suits(face, shape, options)]
    if not suitable:
        raise NoSuitableFaceError(
            f"none of {len(faces)} faces is in the image and {options.min_face_width:g} px wide"
            if faces
            else "no face is found in it"
        )
    return suitable


def region_stages(image: np.ndarray, face: Face, plan: RegionPlan) -> RegionStages | None:
    """Make the target and the masks of one region.

    Args:
        image: uint8 H×W×3 RGB, the image that the target is made from.
        face: whose region it is.
        plan: what is done to it.

    Returns:
        None if the region lies outside the image.
    """
    side = face_square_side(face.landmarks)
    polygons = region_polygons(face.landmarks, plan.region, area_factor=plan.area_factor, forehead=plan.forehead)
    polygons = moved_outline(polygons, plan.displacements, margin=plan.softening.taken * side / plan.softening.raster)
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
