"""Random combination: faces of other photographs put into an image, coarsely.

Two ways, one after the other as often as is drawn: a donor's face is *spliced* over a face of the image, aligned by
landmarks; or it is *pasted*, smaller and sometimes halved, at a random place. Its outline is the convex hull of its
landmarks, with an edge that is hard or next to it. Everything random is drawn first and kept in the record.

Source: the "random combination" forgeries of LFDL + MITL + MDMF (IJCAI 2025 challenge, second place; spec S2): splices
that are scaled and centered, pastes of 1-3 faces 0.4-0.6 times as wide as the image's, half of them halved. Turning
the face with its landmarks, the soft edge and the matched colors are additions; each can be switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from skimage.transform import estimate_transform

from ddl_d2.config.forgery_options import IntRange, Range
from ddl_d2.faces.face import Face
from ddl_d2.forging.appearance import Step, apply_steps, drawn
from ddl_d2.forging.blend import blend
from ddl_d2.forging.canvas import Photo
from ddl_d2.forging.regions import polygon_mask, region_polygons
from ddl_d2.forging.self_blend import Forgery, NoSuitableFaceError
from ddl_d2.forging.soft_mask import Softening, face_square_side, region_box, soft_region_mask
from ddl_d2.forging.warp import affine_view

ALIGNMENTS = ("center", "similarity", "affine")
HALVES = ("left", "right", "top", "bottom")
_MARGIN = 8  # of the donor's image kept around its face, pixels: what interpolation looks at


@dataclass(frozen=True)
class CombineOptions:
    """The ranges that a combination is drawn from; a range is (smallest, largest), both included.

    Attributes:
        splice_prob: how likely the first face is spliced over one of the image's, if a donor's is not too small for
            it; else it is pasted, and the others always are.
        count: faces put into the image.
        alignments: how a spliced face is laid over the other, one of these: "center" (scaled to the other's box and
            centered), "similarity" (turned, too) or "affine" (by all 68 landmarks, least squares).
        paste_width: of a pasted face, as a share of the width of the image's widest.
        paste_angle: degrees that a pasted face is turned, either way.
        half_prob: how likely only half of a pasted face is.
        mirror_prob: how likely the donor is mirrored.
        area: factor by which the outline's area is scaled.
        match_prob: how likely the mean color of the face is moved towards that of what it covers.
        match: how far (share of the way).
        soft_prob: how likely the edge is softened, by a blur of `blur_kernel` raster pixels (see `Softening`).
        min_face_width: donors' and covered faces are at least this wide, pixels.
        max_enlargement: a donor's face is never made wider by more than this factor.
    """

    splice_prob: float = 0.5
    count: IntRange = (1, 3)
    alignments: tuple[str, ...] = ALIGNMENTS
    paste_width: Range = (0.4, 0.6)
    paste_angle: float = 20.0
    half_prob: float = 0.5
    mirror_prob: float = 0.5
    area: Range = (0.9, 1.15)
    match_prob: float = 0.5
    match: Range = (0.4, 1.0)
    soft_prob: float = 0.5
    blur_kernel: IntRange = (3, 7)
    min_face_width: float = 24.0
    max_enlargement: float = 3.0


@dataclass(frozen=True)
class Insertion:
    """One face to be put into an image: what was drawn of it.

    Attributes:
        kind: "splice" or "paste".
        donor: name of the photograph that the face is from.
        face: which of its faces, counted from 0.
        mirrored: whether the donor is mirrored first.
        alignment: for a splice, see `CombineOptions`; "" for a paste.
        matrix: 2×3, from the (mirrored) donor to the image, row by row.
        half: which half of the face is shown, one of `HALVES`; "" for all of it.
        area: factor of the outline's area.
        match: share by which the color is matched.
        blur: odd kernel of the edge, raster pixels; 1 for a hard edge.
    """

    kind: str
    donor: str
    face: int
    mirrored: bool
    alignment: str
    matrix: tuple[float, ...]
    half: str
    area: float
    match: float
    blur: int


def random_combination(
    photo: Photo, donors: Sequence[Photo], rng: np.random.Generator, options: CombineOptions | None = None
) -> Forgery:
    """Put faces of other photographs into an image.

    Args:
        photo: with at least one face (it gives the size of what is pasted); its pixels are not changed.
        donors: other photographs; which of them give a face is drawn.
        rng: the only source of randomness; its state advances.
        options: what to draw from.

    Returns:
        The same bytes for the same images, faces, options and state of `rng`. `real` is the image itself.

    Raises:
        NoSuitableFaceError: the image, or no donor, has a face that is wide enough and (donors) wholly inside.
        ValueError: an unknown alignment.
    """
    options = options or CombineOptions()
    unknown = set(options.alignments) - set(ALIGNMENTS)
    if unknown or not options.alignments:
        raise ValueError(f"alignments are some of {', '.join(ALIGNMENTS)}, not {list(options.alignments)}")
    covered = [face for face in photo.faces if face.width >= options.min_face_width]
    givers = [(donor, number) for donor in donors for number in _usable(donor, options)]
    if not covered or not givers:
        whose = "" if not covered else "donors of "
        raise NoSuitableFaceError(f"{whose}{photo.name}: no face of {options.min_face_width:g} px or more to combine")
    forged, soft = np.ascontiguousarray(photo.image).copy(), np.zeros(photo.image.shape[:2], np.float32)
    done: list[dict[str, Any]] = []
    for turn in range(int(rng.integers(options.count[0], options.count[1] + 1))):
        onto = None
        if turn == 0 and rng.random() < options.splice_prob:
            onto = covered[int(rng.integers(len(covered)))]
        fitting = [(donor, i) for donor, i in givers if onto and _wide_enough(donor.faces[i], onto, options)]
        donor, number = (fitting or givers)[int(rng.integers(len(fitting or givers)))]
        plan = _draw_insertion(photo, onto if fitting else None, donor, number, rng, options)
        record = _insert(forged, soft, donor, plan)
        done += [record] if record else []
    mask = soft > 0.5
    if not mask.any():
        raise NoSuitableFaceError(f"the faces drawn for {photo.name} lie outside it")
    return Forgery(image=forged, real=photo.image, soft=soft, mask=mask, record={"insertions": done})


def _usable(donor: Photo, options: CombineOptions) -> list[int]:
    """The faces that are wide enough and wholly inside their image."""
    size = np.array(donor.image.shape[1::-1])
    return [
        number
        for number, face in enumerate(donor.faces)
        if face.width >= options.min_face_width and ((face.landmarks >= 0) & (face.landmarks < size)).all()
    ]


def _wide_enough(face: Face, onto: Face, options: CombineOptions) -> bool:
    return face.width * options.max_enlargement >= onto.width


def _draw_insertion(
    photo: Photo, onto: Face | None, donor: Photo, number: int, rng: np.random.Generator, options: CombineOptions
) -> Insertion:
    """How one face of a donor is put over another of the image (`onto`), or pasted."""
    mirrored = bool(rng.random() < options.mirror_prob)
    face = _mirrored(donor.faces[number], donor.image.shape[1]) if mirrored else donor.faces[number]
    alignment, half = "", ""
    if onto is not None:
        alignment = options.alignments[int(rng.integers(len(options.alignments)))]
        matrix = alignment_matrix(face, onto, alignment)
    else:
        if rng.random() < options.half_prob:
            half = HALVES[int(rng.integers(len(HALVES)))]
        width = max(one.width for one in photo.faces) * drawn(rng, options.paste_width)
        matrix = _draw_paste(face, min(width / face.width, options.max_enlargement), photo, rng, options)
    return Insertion(
        kind="paste" if onto is None else "splice",
        donor=donor.name,
        face=number,
        mirrored=mirrored,
        alignment=alignment,
        matrix=tuple(round(float(value), 4) for value in matrix.ravel()),
        half=half,
        area=drawn(rng, options.area),
        match=drawn(rng, options.match) if rng.random() < options.match_prob else 0.0,
        blur=_draw_blur(rng, options) if rng.random() < options.soft_prob else 1,
    )


def alignment_matrix(face: Face, onto: Face, alignment: str) -> np.ndarray:
    """Compute the 2×3 matrix that lays a face's landmarks over another's; see `CombineOptions.alignments`."""
    source, goal = face.landmarks, onto.landmarks
    if alignment == "center":
        scale = float((np.ptp(goal, axis=0) / np.ptp(source, axis=0)).max())
        middles = [(points.min(0) + points.max(0)) / 2 for points in (source, goal)]
        return np.concatenate([scale * np.eye(2), (middles[1] - scale * middles[0])[:, None]], axis=1)
    return estimate_transform(alignment, source, goal).params[:2]


def _draw_paste(
    face: Face, scale: float, photo: Photo, rng: np.random.Generator, options: CombineOptions
) -> np.ndarray:
    """A matrix that turns and scales a face and puts the box of its landmarks somewhere inside the image."""
    angle = np.deg2rad(float(rng.uniform(-options.paste_angle, options.paste_angle)))
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = face.landmarks @ linear.T
    room = np.maximum(np.array(photo.image.shape[1::-1]) - 1 - np.ptp(points, axis=0), 0)
    return np.concatenate([linear, (rng.uniform(0, 1, size=2) * room - points.min(0))[:, None]], axis=1)


def _draw_blur(rng: np.random.Generator, options: CombineOptions) -> int:
    low, high = options.blur_kernel
    return 2 * int(rng.integers(low // 2, high // 2 + 1)) + 1


def _insert(forged: np.ndarray, soft: np.ndarray, donor: Photo, plan: Insertion) -> dict[str, Any] | None:
    """Put one face into `forged` and the running `soft` mask, in place; its record, or None if none of it is inside."""
    matrix = np.array(plan.matrix).reshape(2, 3)
    image, face = donor.image, donor.faces[plan.face]
    if plan.mirrored:
        image, face = image[:, ::-1], _mirrored(face, image.shape[1])
    moved = face.moved(matrix)
    (outline,) = region_polygons(moved.landmarks, "face", area_factor=plan.area)
    polygons = [_halved(outline, plan.half)]
    softening = Softening(raster=256, erode=1, blur=plan.blur, blur_sigma=plan.blur / 3)
    side = face_square_side(moved.landmarks)
    box = region_box(polygons, softening, side=side, shape=soft.shape)
    if box is None:
        return None
    if plan.blur > 1:
        _, weight = soft_region_mask(polygons, softening, box=box, side=side)
    else:
        weight = polygon_mask([polygon - box[:2] for polygon in polygons], (box[3] - box[1], box[2] - box[0]))
        weight = weight.astype(np.float32)
    if not (weight > 0.5).any():
        return None
    inside = slice(box[1], box[3]), slice(box[0], box[2])
    content = _seen(image, matrix, box)
    steps = _matching(content, forged[inside], weight > 0.5, plan.match)
    forged[inside] = blend(forged[inside], apply_steps(content, steps), weight)
    np.maximum(soft[inside], weight, out=soft[inside])
    return {**asdict(plan), "matrix": list(plan.matrix), "appearance": steps}


def _seen(image: np.ndarray, matrix: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """What of a donor's image comes to lie in a box of the forged one: only that part of it is warped."""
    x0, y0, x1, y1 = box
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
    corners = np.array([(x0, y0, 1), (x1, y0, 1), (x1, y1, 1), (x0, y1, 1)]) @ inverse[:2].T
    size = np.array(image.shape[1::-1])
    left, top = np.clip(np.floor(corners.min(0)) - _MARGIN, 0, size - 1).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)) + _MARGIN, (left + 1, top + 1), size).astype(int)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top) - (x0, y0)
    return affine_view(np.ascontiguousarray(image[top:bottom, left:right]), shifted, (x1 - x0, y1 - y0))


def _matching(content: np.ndarray, covered: np.ndarray, mask: np.ndarray, share: float) -> list[Step]:
    """The step that moves the mean color of `content` towards that of what it covers, by `share` of the way."""
    if share == 0:
        return []
    offsets = share * (covered[mask].mean(0) - content[mask].mean(0))
    return [{"name": "shift_rgb", "offsets": [round(float(offset), 2) for offset in offsets]}]


def _halved(polygon: np.ndarray, half: str) -> np.ndarray:
    """The convex part of a convex polygon on one side of the middle of its box."""
    if not half:
        return polygon
    axis, sign = (0 if half in ("left", "right") else 1), (1 if half in ("left", "top") else -1)
    middle = (polygon[:, axis].min() + polygon[:, axis].max()) / 2
    kept = []
    for one, other in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        here, there = sign * (middle - one[axis]), sign * (middle - other[axis])
        if here >= 0:
            kept.append(one)
        if here * there < 0:  # the edge crosses the middle
            kept.append(one + (other - one) * here / (here - there))
    return np.array(kept)


def _mirrored(face: Face, width: int) -> Face:
    return face.moved(np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]), mirror=True)
