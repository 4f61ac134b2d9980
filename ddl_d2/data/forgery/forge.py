"""Forging the faces of a picture: displace, change the appearance, blend back.

One face after the other, one region after the other: a copy of the surroundings is displaced and changed in
appearance, and blended into the picture through the region's soft mask. What is done is drawn from the ranges of
`ForgeryOptions` with the generator the caller hands over, and kept in a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddl_d2.data.forgery.appearance import Step, apply_steps
from ddl_d2.data.forgery.blend import blend, soft_mask
from ddl_d2.data.forgery.faces import Face
from ddl_d2.data.forgery.regions import REGIONS, region_mask
from ddl_d2.data.forgery.warp import Displacement, Drag, Scale, displace

Range = tuple[float, float]

# What a region may be enlarged or shrunk by, in area.
_AREA_FACTORS: dict[str, Range] = {"mouth": (0.9, 1.3), "nose": (0.85, 1.15), "face": (0.9, 1.1)}
_AREA_FACTOR_OTHERS: Range = (0.8, 1.2)


@dataclass(frozen=True)
class ForgeryOptions:
    """The ranges that a forgery is drawn from. Lengths are shares of the face's width (`Face.width`).

    Attributes:
        face_prob: how likely each face is forged; at least one always is.
        min_face_width: faces narrower than this many pixels are left alone.
        min_width_for_parts: narrower faces are forged whole: their parts are a handful of pixels.
        whole_face_prob: how likely the region is the whole face, else `part_count` of `parts`.
        parts: the regions to choose from, keys of `REGIONS`.
        part_count: how many of them, both ends included.
        drag_count, drag_radius, drag_length: local drags around the region's landmarks (a length never exceeds a
            third of its radius, so that the map does not fold).
        scale, shift: the similarity move about the region's centre.
        softness: sigma of the soft edge.
        opacity: weight of the forged content inside the mask.
        colour_prob, texture_prob, history_prob: how likely each kind of change is; colour or texture always is.
    """

    face_prob: float = 0.7
    min_face_width: float = 24.0
    min_width_for_parts: float = 72.0
    whole_face_prob: float = 0.4
    parts: tuple[str, ...] = ("left_eye", "right_eye", "both_eyes", "eye_band", "nose", "mouth", "lower_face")
    part_count: tuple[int, int] = (1, 2)
    drag_count: tuple[int, int] = (1, 2)
    drag_radius: Range = (0.15, 0.25)
    drag_length: Range = (0.03, 0.07)
    scale: Range = (0.94, 1.08)
    shift: Range = (-0.03, 0.03)
    softness: Range = (0.012, 0.035)
    opacity: Range = (0.85, 1.0)
    colour_prob: float = 0.8
    texture_prob: float = 0.85
    history_prob: float = 0.5
    rgb_shift: Range = (5.0, 16.0)
    saturation: Range = (0.55, 1.5)
    gain: Range = (0.8, 1.25)
    gamma: Range = (0.75, 1.3)
    blur: Range = (0.005, 0.011)
    sharpen: Range = (0.7, 1.8)
    rescale: Range = (0.35, 0.65)
    noise: Range = (3.0, 8.0)
    jpeg_quality: tuple[int, int] = (25, 70)

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in REGIONS]
        if unknown:
            raise ValueError(f"unknown parts {unknown}; known: {', '.join(REGIONS)}")
        if not 1 <= self.part_count[0] <= self.part_count[1]:
            raise ValueError(f"part_count must be a range of at least 1, not {self.part_count}")


@dataclass(frozen=True)
class Forgery:
    """A forged picture.

    Attributes:
        image: uint8 H×W×3 RGB; bit for bit the original where `soft` is 0.
        mask: bool H×W, True = forged: `soft` above one half before opacity. The ground truth.
        soft: float32 H×W in [0, 1], the union (maximum) of the regions' soft masks, before opacity.
        record: what was done to each face, plain values for JSON.
    """

    image: np.ndarray
    mask: np.ndarray
    soft: np.ndarray
    record: dict[str, Any]


def forge_faces(
    image: np.ndarray, faces: Sequence[Face], rng: np.random.Generator, options: ForgeryOptions | None = None
) -> Forgery:
    """Forge some of the faces of `image`, each in its own way.

    Args:
        image: uint8 H×W×3 RGB; not changed.
        faces: its faces.
        rng: the only source of randomness; its state advances.
        options: what to draw from.

    Raises:
        ValueError: the picture has no face that is wide enough and inside the picture.
    """
    options = options or ForgeryOptions()
    suitable = [i for i, face in enumerate(faces) if _suits(face, image.shape[:2], options)]
    if not suitable:
        raise ValueError(f"none of {len(faces)} faces is inside the picture and {options.min_face_width:g} px wide")
    chosen = {i for i in suitable if rng.random() < options.face_prob} or {int(rng.choice(suitable))}
    forged, soft = image.copy(), np.zeros(image.shape[:2], np.float32)
    records = []
    for i, face in enumerate(faces):
        regions = _forge_face(forged, soft, face, rng, options) if i in chosen else []
        box = [round(float(v), 1) for v in face.box]
        records.append({"box": box, "forged": bool(regions), "regions": regions})
    return Forgery(forged, soft > 0.5, soft, {"faces": records})


def _suits(face: Face, shape: tuple[int, int], options: ForgeryOptions) -> bool:
    inside = ((face.landmarks >= 0) & (face.landmarks < (shape[1], shape[0]))).all(1).mean()
    return face.width >= options.min_face_width and inside >= 0.75


def _forge_face(
    image: np.ndarray, soft: np.ndarray, face: Face, rng: np.random.Generator, options: ForgeryOptions
) -> list[dict[str, Any]]:
    """Forge one face in place (`image` and the running `soft` mask); returns what was done."""
    records = []
    for region in _draw_regions(face.width, rng, options):
        factor = float(rng.uniform(*_AREA_FACTORS.get(region, _AREA_FACTOR_OTHERS)))
        sigma = float(rng.uniform(*options.softness)) * face.width
        opacity = float(rng.uniform(*options.opacity))
        moves = _draw_displacements(face, region, rng, options)
        steps = _draw_appearance(face.width, rng, options)
        mask = region_mask(face.landmarks, region, image.shape[:2], area_factor=factor)
        window = _window(mask, margin=4 * sigma + 0.3 * face.width)
        if window is None:
            continue
        part = soft_mask(mask[window], sigma)
        target = displace(image[window], [_moved_into(move, window) for move in moves])
        image[window] = blend(image[window], apply_steps(target, steps), part * opacity)
        soft[window] = np.maximum(soft[window], part)
        records.append(
            {
                "region": region,
                "area_factor": round(factor, 4),
                "edge_sigma": round(sigma, 3),
                "opacity": round(opacity, 4),
                "displacements": [{"kind": type(move).__name__.lower(), **asdict(move)} for move in moves],
                "appearance": steps,
            }
        )
    return records


def _draw_regions(width: float, rng: np.random.Generator, options: ForgeryOptions) -> list[str]:
    if rng.random() < options.whole_face_prob or width < options.min_width_for_parts:
        return ["face"]
    count = min(int(rng.integers(options.part_count[0], options.part_count[1] + 1)), len(options.parts))
    return [str(part) for part in rng.choice(options.parts, size=count, replace=False)]


def _draw_displacements(
    face: Face, region: str, rng: np.random.Generator, options: ForgeryOptions
) -> list[Displacement]:
    indices = [index for hull in REGIONS[region] for index in hull]
    x, y = (float(v) for v in face.landmarks[indices].mean(0))
    shift = rng.uniform(*options.shift, size=2) * face.width
    factor = float(rng.uniform(*options.scale))
    moves: list[Displacement] = [Scale((x, y), factor, (float(shift[0]), float(shift[1])))]
    for _ in range(int(rng.integers(options.drag_count[0], options.drag_count[1] + 1))):
        centre = face.landmarks[int(rng.choice(indices))]
        radius = float(rng.uniform(*options.drag_radius)) * face.width
        length = min(float(rng.uniform(*options.drag_length)) * face.width, radius / 3)
        angle = float(rng.uniform(0, 2 * np.pi))
        target = centre + length * np.array([np.cos(angle), np.sin(angle)])
        moves.append(Drag((float(centre[0]), float(centre[1])), (float(target[0]), float(target[1])), radius))
    return moves


def _draw_appearance(width: float, rng: np.random.Generator, options: ForgeryOptions) -> list[Step]:
    colour, texture = rng.random() < options.colour_prob, rng.random() < options.texture_prob
    if not colour and not texture:
        texture = True
    steps: list[Step] = []
    if colour:
        steps.append(_draw_colour(rng, options))
    if texture:
        steps.append(_draw_texture(width, rng, options))
    if rng.random() < options.history_prob:
        steps.append(_draw_history(rng, options))
    return steps


def _draw_colour(rng: np.random.Generator, options: ForgeryOptions) -> Step:
    kind = rng.choice(["shift_rgb", "saturation", "contrast", "gamma"], p=[0.4, 0.2, 0.2, 0.2])
    if kind == "shift_rgb":
        offsets = rng.uniform(*options.rgb_shift, size=3) * rng.choice([-1, 1], size=3)
        return {"name": "shift_rgb", "offsets": [round(float(v), 2) for v in offsets]}
    if kind == "saturation":
        return {"name": "saturation", "factor": _off_one(rng, options.saturation)}
    if kind == "contrast":
        return {"name": "contrast", "gain": _off_one(rng, options.gain), "bias": round(float(rng.uniform(-12, 12)), 2)}
    return {"name": "gamma", "exponent": _off_one(rng, options.gamma)}


def _draw_texture(width: float, rng: np.random.Generator, options: ForgeryOptions) -> Step:
    kind = rng.choice(["blur", "sharpen", "rescale"])
    if kind == "blur":
        return {"name": "blur", "sigma": round(max(0.8, float(rng.uniform(*options.blur)) * width), 3)}
    if kind == "sharpen":
        sigma = max(1.0, 0.01 * width)
        return {"name": "sharpen", "amount": round(float(rng.uniform(*options.sharpen)), 3), "sigma": round(sigma, 3)}
    return {"name": "rescale", "factor": round(float(rng.uniform(*options.rescale)), 3)}


def _draw_history(rng: np.random.Generator, options: ForgeryOptions) -> Step:
    if rng.random() < 0.5:
        low, high = options.jpeg_quality
        return {"name": "jpeg", "quality": int(rng.integers(low, high + 1))}
    sigma, seed = float(rng.uniform(*options.noise)), int(rng.integers(2**31))
    return {"name": "noise", "sigma": round(sigma, 2), "seed": seed, "grain": round(float(rng.uniform(0, 0.8)), 2)}


def _off_one(rng: np.random.Generator, limits: Range) -> float:
    """A factor near either end of `limits`, not near 1, where it would change nothing."""
    low, high = limits
    value = rng.uniform(low, 1 - 0.5 * (1 - low)) if rng.random() < 0.5 else rng.uniform(1 + 0.5 * (high - 1), high)
    return round(float(value), 4)


def _window(mask: np.ndarray, margin: float) -> tuple[slice, slice] | None:
    """The rows and columns that hold the mask and `margin` pixels around it; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    pad = int(np.ceil(margin))
    return (
        slice(max(0, int(rows[0]) - pad), int(rows[-1]) + pad + 1),
        slice(max(0, int(columns[0]) - pad), int(columns[-1]) + pad + 1),
    )


def _moved_into(move: Displacement, window: tuple[slice, slice]) -> Displacement:
    """`move` in the coordinates of a window."""
    x0, y0 = window[1].start, window[0].start
    centre = (move.centre[0] - x0, move.centre[1] - y0)
    if isinstance(move, Drag):
        return Drag(centre, (move.target[0] - x0, move.target[1] - y0), move.radius)
    return Scale(centre, move.factor, move.shift)
