"""Face finders by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import FaceFinder
from ddl_d2.faces.look_again import SecondLook
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


def make_remembering_finder(
    name: str, *, second_look: bool = True, cache: str | Path | None = None, **options: Any
) -> CachedFaceFinder:
    """Make a face finder that remembers what it found.

    Args:
        name: one of `FINDERS`.
        second_look: look again where nothing was found, see `SecondLook`.
        cache: the folder to remember in; None for the one that all tools share.
        **options: further arguments of `make_finder`. Raises as that.
    """
    finder = make_finder(name, **options)
    return CachedFaceFinder(SecondLook(finder) if second_look else finder, cache)
