"""YuNet: smaller and more turned faces than dlib finds, from an MIT model file that the caller provides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.dlib_finder import LandmarkModel, file_sha256, import_dlib, shrunk
from ddl_d2.faces.face import Face

# From YuNet's box to the square that dlib's landmark model was trained in, fitted on 30 portraits that both detect:
# its side is this share of sqrt(width · height), its center this share of the height below the top.
_SQUARE_SIDE, _SQUARE_CENTER = 0.91, 0.547


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
        nms: of two detections whose boxes overlap by more than this (intersection over union), the less sure is
            dropped, in (0, 1).

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
        nms: float = 0.3,
    ) -> None:
        self.max_side, self.min_score, self.nms = max_side, min_score, nms
        self._model = Path(model)
        if not self._model.is_file():
            raise FaceFinderUnavailableError(f"the YuNet model {model} does not exist; OpenCV's model zoo has it (MIT)")
        try:
            self._detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), min_score, nms, 5000)
        except cv2.error as error:
            raise FaceFinderUnavailableError(f"OpenCV cannot read the YuNet model {model}: {error}") from error
        try:
            self._landmarks = LandmarkModel(landmark_model) if landmarks else None
        except FaceFinderUnavailableError as error:
            raise FaceFinderUnavailableError(
                f"YuNet finds boxes and 5 points, forging a face needs 68 landmarks: {error}"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # For workers that are not forked: OpenCV's detector cannot be pickled.
        landmarks = self._landmarks
        make = partial(
            type(self),
            landmarks=landmarks is not None,
            max_side=self.max_side,
            min_score=self.min_score,
            nms=self.nms,
        )
        return make, (self._model, None if landmarks is None else landmarks.path)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What the cache tells finders apart by; see `FaceFinder`."""
        return {
            "finder": "yunet",
            "opencv": cv2.__version__,
            "model": file_sha256(self._model),
            "landmark_model": None if self._landmarks is None else self._landmarks.sha256,
            "max_side": self.max_side,
            "min_score": self.min_score,
            "nms": self.nms,
        }

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of `image` (uint8 H×W×3 RGB), from left to right."""
        small, ratio = shrunk(image, self.max_side)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        faces = []
        for row in [] if rows is None else rows.astype(np.float64):
            # Of images a few pixels high OpenCV now and then gives boxes that are no numbers.
            if not np.isfinite(row).all():
                continue
            points = row[4:14].reshape(5, 2)
            if self._landmarks is not None:
                points = self._landmarks.place(small, _dlib_square(row[:4]))
            (x0, y0), (x1, y1) = row[:2] * ratio, (row[:2] + row[2:4]) * ratio
            faces.append(Face((float(x0), float(y0), float(x1), float(y1)), points * ratio, float(row[14])))
        return sorted(faces, key=lambda face: face.box)


def _dlib_square(box: np.ndarray) -> Any:
    """Dlib's rectangle for YuNet's (x, y, width, height)."""
    x, y, width, height = box
    side = _SQUARE_SIDE * np.sqrt(max(width * height, 1.0))
    left, top = x + width / 2 - side / 2, y + height * _SQUARE_CENTER - side / 2
    return import_dlib().rectangle(*(round(float(v)) for v in (left, top, left + side, top + side)))
