"""Face finders by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import FaceFinder
from ddl_d2.faces.yunet_finder import YuNetFaceFinder

FINDERS = ("dlib", "yunet")


def make_finder(
    name: str, *, yunet_model: str | Path | None = None, landmark_model: str | Path | None = None, **options: Any
) -> FaceFinder:
    """Make a face finder by name.

    Args:
        name: one of `FINDERS`.
        yunet_model: the model file that "yunet" needs.
        landmark_model: another 68-point model for dlib.
        **options: further keywords of the finder's class.

    Raises:
        ValueError: an unknown name.
        FaceFinderUnavailableError: a library or model is missing; the message says what to install.
    """
    if name == "dlib":
        return DlibFaceFinder(landmark_model, **options)
    if name == "yunet":
        if yunet_model is None:
            raise FaceFinderUnavailableError(
                "the face finder yunet needs the path of a YuNet model file (face_detection_yunet_*.onnx of OpenCV's "
                "model zoo, MIT): INPUT.FACES.YUNET_MODEL file.onnx; or take another finder: INPUT.FACES.FINDER dlib"
            )
        return YuNetFaceFinder(yunet_model, landmark_model, **options)
    raise ValueError(f"unknown face finder {name!r}; known: {', '.join(FINDERS)}")
