from pathlib import Path

import numpy as np
import pytest
import skimage

from ddl_d2.errors import FaceFinderUnavailable
from ddl_d2.faces.finders import DlibFaceFinder, Face, YuNetFaceFinder
from ddl_d2.io.image import read_image


@pytest.fixture(scope="session")
def finder():
    try:
        return DlibFaceFinder()
    except FaceFinderUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def yunet_model(shared):
    """A YuNet model; the project ships none."""
    found = sorted((shared / "data" / "models").glob("face_detection_yunet*.onnx"))
    return found[0] if found else pytest.skip("no YuNet model to test with")


@pytest.fixture
def yunet(finder, yunet_model):
    del finder  # its landmark model is there
    return YuNetFaceFinder(yunet_model)


@pytest.fixture(scope="session")
def astronaut():
    image = read_image(Path(skimage.__file__).parent / "data/astronaut.png", max_pixels=10**7)
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def astronaut_face(finder, astronaut):
    (face,) = finder(astronaut)
    return face


def synthetic_face(centre=(100.0, 100.0), width=100.0):
    """68 points laid out like a face: a jaw of `width`, features inside."""
    t = np.linspace(np.pi, 0, 17)
    jaw = np.stack([np.cos(t) * 0.5, np.sin(t) * 0.65], axis=1)
    brows = np.array([(-0.4 + 0.07 * i, -0.15) for i in range(5)] + [(0.12 + 0.07 * i, -0.15) for i in range(5)])
    brows[[2, 7], 1] -= 0.03
    nose = np.array([(0, -0.05 + 0.07 * i) for i in range(4)] + [(-0.1 + 0.05 * i, 0.22) for i in range(5)])
    ring = np.linspace(np.pi, -np.pi, 6, endpoint=False)
    eyes = [np.stack([x + 0.1 * np.cos(ring), 0.04 * np.sin(-ring)], axis=1) for x in (-0.25, 0.25)]
    outer, inner = np.linspace(np.pi, -np.pi, 12, endpoint=False), np.linspace(np.pi, -np.pi, 8, endpoint=False)
    mouth = [np.stack([s * np.cos(a), 0.38 + 0.4 * s * np.sin(-a)], axis=1) for s, a in ((0.2, outer), (0.14, inner))]
    points = np.concatenate([jaw, brows, nose, *eyes, *mouth]) * width + np.array(centre)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), points)


@pytest.fixture(name="synthetic_face")
def synthetic_face_fixture():
    return synthetic_face
