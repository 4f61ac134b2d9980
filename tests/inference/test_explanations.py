"""Explanations from the mask: only what is marked is named, boxes hold marked pixels, measures are what they say."""

import json
import re

import cv2
import numpy as np
import pytest

from ddl_d2.faces.face import Face
from ddl_d2.inference.differences import measure_differences, signals_of
from ddl_d2.inference.explanations import PARTS, explain, face_mask, parts_of
from ddl_d2.inference.prediction import Prediction
from ddl_d2.predictions.regions import MIN_REGION_AREA

SHAPE = (240, 260)


def face_at(x: float, y: float, size: float) -> Face:
    """A face of plain geometry, `size` pixels wide, whose landmarks lie where a frontal face has them."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.5 + 0.5 * np.cos(angles), 0.35 + 0.65 * np.sin(angles)], 1)
    brows = [np.stack([np.linspace(a, b, 5), np.full(5, 0.2)], 1) for a, b in ((0.12, 0.42), (0.58, 0.88))]
    nose = np.concatenate(
        [
            np.stack([np.full(4, 0.5), np.linspace(0.3, 0.52, 4)], 1),
            np.stack([np.linspace(0.41, 0.59, 5), np.full(5, 0.58)], 1),
        ]
    )
    turn = np.linspace(0, 2 * np.pi, 7)[:-1]
    eyes = [np.stack([c + 0.09 * np.cos(turn), 0.32 + 0.04 * np.sin(turn)], 1) for c in (0.28, 0.72)]
    turn = np.linspace(0, 2 * np.pi, 21)[:-1]
    mouth = np.stack([0.5 + 0.17 * np.cos(turn), 0.76 + 0.07 * np.sin(turn)], 1)
    points = np.concatenate([jaw, *brows, nose, *eyes, mouth]) * size + (x, y)
    return Face((x, y, x + size, y + size), points)


FACES = [face_at(20, 40, 90), face_at(140, 60, 100)]


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(90, 160, (*SHAPE, 3), dtype=np.uint8)


def test_parts_are_disjoint_and_fill_the_face():
    parts = dict(parts_of(FACES[0], SHAPE))
    assert set(parts) == set(PARTS)
    total = np.sum([part.astype(int) for part in parts.values()], 0)
    np.testing.assert_array_equal(total, face_mask(FACES[0], SHAPE).astype(int))
    assert parts["left_eye"][40 + 29, 20 + 25]
    assert parts["right_eye"][40 + 29, 20 + 65]
    assert parts["nose"][40 + 45, 20 + 45]
    assert parts["mouth"][40 + 68, 20 + 45]


def test_nothing_outside_the_mask_is_ever_named(image, rng):
    for _ in range(60):
        forged = np.zeros(SHAPE, bool)
        for _ in range(rng.integers(0, 4)):
            center = tuple(int(v) for v in rng.integers(0, 250, 2))
            axes = tuple(int(v) for v in rng.integers(1, 50, 2))
            plane = forged.astype(np.uint8)
            forged = cv2.ellipse(plane, center, axes, 0, 0, 360, 1, -1).astype(bool)
        found = explain(image, forged, FACES)
        named = set()
        for face in found.faces:
            parts = dict(parts_of(FACES[face.number - 1], SHAPE))
            whole = face_mask(FACES[face.number - 1], SHAPE)
            assert face.forged_share == pytest.approx((whole & forged).sum() / whole.sum(), abs=1e-4)
            for part in face.parts:
                marked = parts[part.part] & forged
                assert marked.sum() >= MIN_REGION_AREA
                rows, columns = np.nonzero(marked)
                assert part.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert part.forged_share == pytest.approx(marked.sum() / parts[part.part].sum(), abs=1e-4)
                named.add((face.number, part.part))
        for number, face in enumerate(FACES, 1):
            for name, part in parts_of(face, SHAPE):
                said = re.search(rf"Face {number}, {re.escape(PARTS[name])}:", found.text) is not None
                assert said == ((number, name) in named)
                assert said == ((part & forged).sum() >= MIN_REGION_AREA)
        assert len(found.faces) + found.unmarked_faces == 2


def test_an_empty_mask_and_an_image_without_faces(image):
    empty = explain(image, np.zeros(SHAPE, bool), FACES)
    assert empty.faces == ()
    assert empty.text == "Faces in which nothing is marked: 2."
    forged = np.zeros(SHAPE, bool)
    forged[10:40, 10:40] = True
    assert explain(image, forged, []).text == "Outside the faces: 100 % of the marked pixels."
    assert explain(image, np.zeros(SHAPE, bool), []).text == "No pixel is marked as forged."


def test_a_face_without_landmarks_is_told_as_a_whole(image):
    box = Face((20.0, 40.0, 110.0, 130.0), np.zeros((0, 2)))
    forged = np.zeros(SHAPE, bool)
    forged[40:86, 20:111] = True  # half of the box, whose borders are pixel centers: 46 of 91 rows
    (found,) = explain(image, forged, [box]).faces
    assert found.parts == ()
    assert found.forged_share == pytest.approx(46 / 91, abs=1e-4)
    assert found.sentences() == ["Face 1 at (20, 40) to (111, 131): 51 % of it is marked."]


def test_a_softened_recolored_mouth_is_said_to_be(image):
    forged = dict(parts_of(FACES[1], SHAPE))["mouth"]
    changed = image.copy()
    changed[forged] = cv2.GaussianBlur(image, (0, 0), 3)[forged] + np.array([25, 0, 0], np.uint8)
    (face,) = explain(changed, forged, FACES).faces
    (part,) = face.parts
    assert (face.number, part.part, part.forged_share) == (2, "mouth", 1.0)
    assert part.differences is not None
    assert part.differences.noise < 0.6
    assert part.differences.color_step is not None
    assert part.differences.color_step > 5
    assert "with less (0." in part.sentence()
    assert "a visible color step at the border" in part.sentence()


def test_measures_by_hand():
    """Stripes one pixel wide of ±8 beside stripes of ±4: twice the noise; flat colors 10 L* apart."""
    across = np.tile([1, -1], 60)
    image = np.full((80, 120, 3), 120, np.uint8)
    image[:40] += (8 * across).astype(np.int8).view(np.uint8)[None, :, None]
    image[40:] += (4 * across).astype(np.int8).view(np.uint8)[None, :, None]
    marked = np.zeros((80, 120), bool)
    marked[:40] = True
    found = measure_differences(signals_of(image), marked, ~marked, face_width=100)
    assert found is not None
    assert found.noise == pytest.approx(2, rel=0.05)
    assert found.color_step == pytest.approx(0, abs=0.1)
    flat = np.full((80, 120, 3), 119, np.uint8)  # L* 50.0
    flat[:40] = 145  # L* 60.2, by OpenCV's table a little more
    found = measure_differences(signals_of(flat), marked, ~marked, face_width=100)
    assert found is not None
    assert found.color_step == pytest.approx(10.2, abs=0.2)


def test_too_little_skin_is_said(image):
    forged = np.ones(SHAPE, bool)
    (first, _) = explain(image, forged, FACES).faces
    assert all(part.differences is None for part in first.parts)
    assert "too little unmarked skin" in first.parts[0].sentence()


def test_sizes_that_differ(image):
    with pytest.raises(ValueError, match="a mask of"):
        explain(image, np.zeros((4, 4), bool), FACES)


def test_a_prediction_explains_itself_only_where_the_verdict_says_forged(image):
    forgery_map = np.zeros(SHAPE, np.float32)
    forgery_map[40 + 10 : 40 + 40, 20:65] = 0.9
    output = {"fake_score": 0.8, "forgery_map": forgery_map}
    fake = Prediction(image=image, output=output)
    fake.explain(lambda found: FACES)
    assert fake.explanation == explain(image, forgery_map > 0.5, FACES)
    row = json.loads(json.dumps(fake.to_dict()))["explanation"]
    assert row["faces"][0]["parts"][0]["part"] == "left_eye"
    assert row["text"] == fake.explanation.text
    answer = fake.ddl_x_answer()
    # Columns 20 to 64 of 260, rows 50 to 79 of 240, in thousandths.
    assert answer.boxes == ((77, 208, 246, 329),)
    assert fake.explanation.text in answer.traces
    real = Prediction(image=image, output={**output, "fake_score": 0.4})
    real.explain(lambda found: FACES)
    assert real.explanation is None
    assert "explanation" not in real.to_dict()
    assert (real.ddl_x_answer().is_fake, real.ddl_x_answer().boxes) == (False, ())
    assert real.ddl_x_answer().faults() == []
