"""Making many different real images from few photographs.

An image is a canvas of one to four cells; each cell is a crop around a face of some photograph, scaled, turned,
mirrored, lit and degraded in its own way. Cells are put together for real and for forged images alike, so that a
seam between cells says nothing about the label: only the forging inside a face does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddl_d2.faces.face import Face
from ddl_d2.forging.appearance import Step, apply_steps
from ddl_d2.forging.warp import affine_view

Cell = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Photo:
    """A photograph and its faces.

    Attributes:
        name: for the record.
        image: uint8 H×W×3 RGB.
        faces: in it.
    """

    name: str
    image: np.ndarray
    faces: tuple[Face, ...]


@dataclass(frozen=True)
class ComposeOptions:
    """The ranges that a canvas is drawn from.

    Attributes:
        single_prob: how likely the canvas is one cell; else it is two or four.
        face_share: the face's width over the cell's shorter side.
        max_enlargement: a crop is never enlarged more than this.
        rotation: degrees, either way.
        placement: how far the face's center may be off the cell's, as a share of the cell.
    """

    single_prob: float = 0.6
    face_share: tuple[float, float] = (0.4, 0.75)
    max_enlargement: float = 1.8
    rotation: float = 15.0
    placement: float = 0.08


@dataclass(frozen=True)
class Canvas:
    """A composed real image.

    Attributes:
        image: uint8 S×S×3 RGB.
        faces: in it.
        record: how it was made, plain values for JSON.
    """

    image: np.ndarray
    faces: tuple[Face, ...]
    record: dict[str, Any]


def draw_cells(size: int, rng: np.random.Generator, options: ComposeOptions) -> list[Cell]:
    """Divide a `size`×`size` canvas into one, two or four cells that cover it without overlap."""
    if rng.random() < options.single_prob:
        return [(0, 0, size, size)]
    cut_x, cut_y = (int(v) for v in np.rint(rng.uniform(0.4, 0.6, size=2) * size))
    columns, rows = [(0, cut_x), (cut_x, size)], [(0, cut_y), (cut_y, size)]
    kind = rng.choice(["columns", "rows", "grid"], p=[0.45, 0.2, 0.35])
    if kind == "columns":
        rows = [(0, size)]
    elif kind == "rows":
        columns = [(0, size)]
    return [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]


def compose(
    photos: Sequence[Photo], cells: Sequence[Cell], rng: np.random.Generator, options: ComposeOptions | None = None
) -> Canvas:
    """Fill each of `cells` from the photograph of the same place in `photos`.

    Raises:
        ValueError: a photograph without a face, or not as many photographs as cells.
    """
    options = options or ComposeOptions()
    if len(photos) != len(cells):
        raise ValueError(f"{len(cells)} cells need as many photographs, not {len(photos)}")
    width, height = max(cell[2] for cell in cells), max(cell[3] for cell in cells)
    image = np.zeros((height, width, 3), np.uint8)
    faces: list[Face] = []
    records = []
    for photo, cell in zip(photos, cells, strict=True):
        crop, inside, record = _fill(photo, cell, rng, options)
        image[cell[1] : cell[3], cell[0] : cell[2]] = crop
        offset = np.array([[1.0, 0.0, cell[0]], [0.0, 1.0, cell[1]]])
        faces += [face.moved(offset) for face in inside]
        records.append(record)
    return Canvas(image, tuple(faces), {"cells": records})


def _fill(
    photo: Photo, cell: Cell, rng: np.random.Generator, options: ComposeOptions
) -> tuple[np.ndarray, list[Face], dict[str, Any]]:
    if not photo.faces:
        raise ValueError(f"{photo.name} has no face")
    width, height = cell[2] - cell[0], cell[3] - cell[1]
    face = photo.faces[int(rng.integers(len(photo.faces)))]
    matrix, mirror = _draw_view(face, photo.image.shape[:2], (width, height), rng, options)
    crop = affine_view(photo.image, matrix, (width, height))
    steps = draw_real_variation(rng)
    moved = [other.moved(matrix, mirror=mirror) for other in photo.faces]
    inside = [other for other in moved if _mostly_inside(other, (width, height))]
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    record = {
        "photo": photo.name,
        "cell": list(cell),
        "scale": round(scale, 4),
        "mirrored": mirror,
        "appearance": steps,
    }
    return apply_steps(crop, steps), inside, record


def _draw_view(
    face: Face, photo: tuple[int, int], size: tuple[int, int], rng: np.random.Generator, options: ComposeOptions
) -> tuple[np.ndarray, bool]:
    """An affine map (2×3) from a photograph (H, W) to a cell of `size` (W, H), and whether it mirrors."""
    share = float(rng.uniform(*options.face_share))
    scale = min(share * min(size) / max(face.width, 1.0), options.max_enlargement)
    scale = max(scale, size[0] / photo[1], size[1] / photo[0])  # never show more than there is
    angle = np.deg2rad(float(rng.uniform(-options.rotation, options.rotation)))
    mirror = bool(rng.random() < 0.5)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirror:
        linear = linear @ np.diag([-1.0, 1.0])
    center = (face.landmarks.min(0) + face.landmarks.max(0)) / 2
    goal = (0.5 + rng.uniform(-options.placement, options.placement, size=2)) * np.array(size)
    center += _push_inside(center, linear, goal, photo, size)
    return np.concatenate([linear, (goal - linear @ center)[:, None]], axis=1), mirror


def _push_inside(
    center: np.ndarray, linear: np.ndarray, goal: np.ndarray, photo: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """How far (pixels of the photograph) the view must move so that the cell hangs over its edges least."""
    width, height = size
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
    seen = (corners - goal) @ np.linalg.inv(linear).T + center
    before, after = np.maximum(-seen.min(0), 0), np.maximum(seen.max(0) - np.array([photo[1], photo[0]]), 0)
    both = (before > 0) & (after > 0)
    return np.where(both, (before - after) / 2, before - after)


def _mostly_inside(face: Face, size: tuple[int, int]) -> bool:
    return bool(((face.landmarks >= 0) & (face.landmarks < size)).all(1).mean() >= 0.75)


def draw_real_variation(rng: np.random.Generator) -> list[Step]:
    """Draw light, color, sharpness, noise and compression that an honest photograph may have, as appearance steps."""
    steps: list[Step] = []

    def maybe(probability: float, step: Step) -> None:
        if rng.random() < probability:
            steps.append(step)

    def number(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    maybe(0.5, {"name": "light", "angle": number(0, 6.283), "low": number(0.65, 1), "high": number(1, 1.25)})
    maybe(0.7, {"name": "shift_rgb", "offsets": [number(-18, 18) for _ in range(3)]})
    maybe(0.7, {"name": "gamma", "exponent": number(0.7, 1.4)})
    maybe(0.5, {"name": "contrast", "gain": number(0.75, 1.2), "bias": number(-15, 15)})
    maybe(0.6, {"name": "saturation", "factor": number(0.5, 1.4)})
    maybe(0.06, {"name": "saturation", "factor": 0.0})
    maybe(0.25, {"name": "blur", "sigma": number(0.4, 1.1)})
    maybe(0.25, {"name": "sharpen", "amount": number(0.2, 0.8), "sigma": 1.0})
    maybe(0.5, {"name": "noise", "sigma": number(1, 5), "seed": int(rng.integers(2**31)), "grain": number(0, 0.6)})
    maybe(0.5, {"name": "jpeg", "quality": int(rng.integers(55, 96))})
    return steps
