"""What is marked as forged, in words that come from the mask: which faces, which parts of them, and how they differ.

Every sentence is a template filled with what was measured on the image; nothing else is said. A part of a face is only
named if `MIN_REGION_AREA` pixels of it are marked, and its box is that of its marked pixels.

Shapes: `H, W` pixels of the image. Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 just outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ddl_d2.faces.face import NUM_LANDMARKS, Face
from ddl_d2.forging.regions import polygon_mask, region_polygons
from ddl_d2.inference.differences import Differences, measure_differences, signals_of
from ddl_d2.predictions.regions import MIN_REGION_AREA

Bools = NDArray[np.bool_]
Box = tuple[int, int, int, int]

PARTS = {
    "left_eye": "the eye and brow on the left of the image",
    "right_eye": "the eye and brow on the right of the image",
    "nose": "the nose",
    "mouth": "the mouth",
    "rest": "cheeks, chin and forehead",
}
"""Part of a face -> its name in sentences. "rest" is what the others leave."""

_FOREHEAD = 0.25
_AROUND = 1.5  # area of the hull in which skin beside the mask is looked for


@dataclass(frozen=True)
class ForgedPart:
    """A part of a face of which pixels are marked as forged.

    Attributes:
        part: a key of `PARTS`.
        forged_share: of its pixels, above 0 and at most 1.
        box: of its marked pixels.
        differences: between them and the skin beside them; None if there is too little of it.
    """

    part: str
    forged_share: float
    box: Box
    differences: Differences | None

    def sentence(self) -> str:
        """The finding in words."""
        where = f"{PARTS[self.part]}: {_percent(self.forged_share)} marked, box {_box_text(self.box)}"
        if self.differences is None:
            return f"{where}; too little unmarked skin beside it to compare."
        return f"{where}; {self.differences.in_words()}."


@dataclass(frozen=True)
class ForgedFace:
    """A face of which pixels are marked as forged.

    Attributes:
        number: of the face, from 1 on, from left to right.
        face_box: of the face.
        forged_share: of its pixels.
        parts: those that are marked; empty for a face without 68 landmarks.
    """

    number: int
    face_box: Box
    forged_share: float
    parts: tuple[ForgedPart, ...]

    def sentences(self) -> list[str]:
        """The finding in words, the face first."""
        head = f"Face {self.number} at {_box_text(self.face_box)}: {_percent(self.forged_share)} of it is marked."
        return [head, *(f"Face {self.number}, {part.sentence()}" for part in self.parts)]


@dataclass(frozen=True)
class Explanation:
    """What is marked as forged in an image.

    Attributes:
        faces: those with marked pixels.
        unmarked_faces: how many others there are.
        elsewhere: share of the image's marked pixels that lie in no face; 0 if nothing is marked.
    """

    faces: tuple[ForgedFace, ...]
    unmarked_faces: int
    elsewhere: float

    @property
    def text(self) -> str:
        """All of it, a sentence a line."""
        lines = [sentence for face in self.faces for sentence in face.sentences()]
        if self.unmarked_faces:
            lines.append(f"Faces in which nothing is marked: {self.unmarked_faces}.")
        if self.elsewhere > 0:
            lines.append(f"Outside the faces: {_percent(self.elsewhere)} of the marked pixels.")
        return "\n".join(lines) or "No pixel is marked as forged."

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {**asdict(self), "text": self.text}


def explain(image: NDArray[np.uint8], forged: Bools, faces: Sequence[Face]) -> Explanation:
    """Say which faces and parts of faces a mask marks, and how they differ from the skin beside them.

    Args:
        image: uint8 H×W×3 RGB.
        forged: H×W, the pixels that are marked.
        faces: of the image, see `faces.finders`; those with 68 landmarks are told apart into parts.

    Raises:
        ValueError: image and mask are not of one size.
    """
    if forged.shape != image.shape[:2]:
        raise ValueError(f"an image of {image.shape[:2]} and a mask of {forged.shape}")
    signals = signals_of(image)
    inside = np.zeros(forged.shape, bool)
    found = []
    for number, face in enumerate(faces, 1):
        whole = face_mask(face, forged.shape)
        inside |= whole
        marked = whole & forged
        if np.count_nonzero(marked) < MIN_REGION_AREA:
            continue
        skin = face_mask(face, forged.shape, area_factor=_AROUND) & ~forged
        parts = tuple(
            ForgedPart(name, _share(part & forged, part), _box_of(part & forged), measured)
            for name, part in parts_of(face, forged.shape)
            if np.count_nonzero(part & forged) >= MIN_REGION_AREA
            for measured in [measure_differences(signals, part & forged, skin, face_width=face.width)]
        )
        found.append(ForgedFace(number, _box_of(whole), _share(marked, whole), parts))
    return Explanation(tuple(found), len(faces) - len(found), _share(forged & ~inside, forged))


def face_mask(face: Face, shape: tuple[int, int], *, area_factor: float = 1.0) -> Bools:
    """Draw a face, H×W: the hull of its landmarks with some forehead, or its box if it has not 68 landmarks."""
    if len(face.landmarks) == NUM_LANDMARKS:
        polygons = region_polygons(face.landmarks, "face", area_factor=area_factor, forehead=_FOREHEAD)
        return polygon_mask(polygons, shape)
    x0, y0, x1, y1 = face.box
    grow = (area_factor**0.5 - 1) / 2
    dx, dy = grow * (x1 - x0), grow * (y1 - y0)
    corners = np.array([(x0 - dx, y0 - dy), (x1 + dx, y0 - dy), (x1 + dx, y1 + dy), (x0 - dx, y1 + dy)])
    return polygon_mask([corners], shape)


def parts_of(face: Face, shape: tuple[int, int]) -> Iterator[tuple[str, Bools]]:
    """Yield the parts of a face, H×W each; none of two. Nothing of a face without 68 landmarks."""
    if len(face.landmarks) != NUM_LANDMARKS:
        return
    left = face_mask(face, shape)
    for name in ("left_eye", "right_eye", "nose", "mouth"):
        part = polygon_mask(region_polygons(face.landmarks, name), shape) & left
        left &= ~part
        yield name, part
    yield "rest", left


def _share(some: Bools, of: Bools) -> float:
    total = np.count_nonzero(of)
    return round(np.count_nonzero(some) / total, 4) if total else 0.0


def _box_of(mask: Bools) -> Box:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def _box_text(box: Box) -> str:
    return f"({box[0]}, {box[1]}) to ({box[2]}, {box[3]})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "less than 1 %"
