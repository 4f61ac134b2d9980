import json

import cv2
import numpy as np
import pytest

from ddl_d2.data.forgery.forge import ForgeryOptions, forge_faces


def picture(shape=(220, 420, 3), seed=0):
    """Smooth texture with some noise, so that every change shows."""
    rng = np.random.default_rng(seed)
    values = cv2.GaussianBlur(rng.normal(128, 400, shape).astype(np.float32), (0, 0), 5) + rng.normal(0, 4, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def two_faces(synthetic_face):
    return [synthetic_face(centre=(100.0, 100.0)), synthetic_face(centre=(310.0, 100.0))]


def test_the_same_seed_gives_the_same_bytes(synthetic_face):
    image, faces = picture(), two_faces(synthetic_face)
    before = image.copy()
    one, two = (forge_faces(image, faces, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.mask, two.mask)
    assert one.record == two.record
    np.testing.assert_array_equal(image, before)
    other = forge_faces(image, faces, np.random.default_rng(6))
    assert (other.image != one.image).any()


@pytest.mark.parametrize("seed", range(12))
def test_mask_and_changed_pixels_agree(seed, synthetic_face):
    image = picture(seed=seed)
    forgery = forge_faces(image, two_faces(synthetic_face), np.random.default_rng(seed))
    changed = (forgery.image != image).any(2)
    assert not (changed & (forgery.soft == 0)).any()  # nothing outside the soft mask
    np.testing.assert_array_equal(forgery.mask, forgery.soft > 0.5)
    assert forgery.mask.any()
    assert changed[forgery.mask].mean() > 0.9  # what is called forged was forged
    assert forgery.soft.max() <= 1


def test_faces_are_forged_independently_and_some_left_alone(synthetic_face):
    image, faces = picture(), two_faces(synthetic_face)
    seen = set()
    for seed in range(30):
        forgery = forge_faces(image, faces, np.random.default_rng(seed))
        flags = tuple(face["forged"] for face in forgery.record["faces"])
        halves = (forgery.mask[:, :205].any(), forgery.mask[:, 205:].any())
        assert flags == halves
        seen.add(flags)
    assert seen == {(True, True), (True, False), (False, True)}


def test_at_least_one_face_is_forged(synthetic_face):
    options = ForgeryOptions(face_prob=0.0)
    record = forge_faces(picture(), two_faces(synthetic_face), np.random.default_rng(0), options).record
    assert sum(face["forged"] for face in record["faces"]) == 1


def test_narrow_faces_are_forged_whole(synthetic_face):
    options = ForgeryOptions(whole_face_prob=0.0)
    faces = [synthetic_face(centre=(60.0, 60.0), width=50.0)]
    (face,) = forge_faces(picture(), faces, np.random.default_rng(0), options).record["faces"]
    assert [region["region"] for region in face["regions"]] == ["face"]


def test_drags_do_not_fold(synthetic_face):
    for seed in range(20):
        record = forge_faces(picture(), two_faces(synthetic_face), np.random.default_rng(seed)).record
        for face in record["faces"]:
            for region in face["regions"]:
                for move in region["displacements"]:
                    if move["kind"] == "drag":
                        length = np.linalg.norm(np.subtract(move["target"], move["centre"]))
                        assert length <= move["radius"] / 3 + 1e-9


def test_the_record_is_json(synthetic_face):
    record = forge_faces(picture(), two_faces(synthetic_face), np.random.default_rng(1)).record
    assert json.loads(json.dumps(record))["faces"][0]["box"]


def test_a_face_at_the_edge(synthetic_face):
    image = picture((160, 160, 3))
    forgery = forge_faces(image, [synthetic_face(centre=(50.0, 80.0), width=120.0)], np.random.default_rng(2))
    assert forgery.image.shape == image.shape
    assert forgery.mask.any()


@pytest.mark.parametrize(("centre", "width"), [((100.0, 100.0), 12.0), ((-300.0, 50.0), 100.0)])
def test_no_suitable_face_is_an_error(centre, width, synthetic_face):
    with pytest.raises(ValueError, match="none of 1 faces"):
        forge_faces(picture(), [synthetic_face(centre=centre, width=width)], np.random.default_rng(0))


def test_options_are_checked():
    with pytest.raises(ValueError, match="unknown parts"):
        ForgeryOptions(parts=("ear",))
    with pytest.raises(ValueError, match="part_count"):
        ForgeryOptions(part_count=(2, 1))


def test_a_photograph(astronaut, astronaut_face):
    forgery = forge_faces(astronaut, [astronaut_face], np.random.default_rng(4))
    changed = (forgery.image != astronaut).any(2)
    assert not changed[forgery.soft == 0].any()
    # a forged face of about 90 pixels changes well under a tenth of 512 x 512, and visibly inside
    assert 0 < forgery.mask.mean() < 0.05
    difference = np.abs(forgery.image.astype(int) - astronaut)[forgery.mask].mean()
    assert 1 < difference < 60
