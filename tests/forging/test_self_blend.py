import json
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.faces.face import Face
from ddl_d2.forging.appearance import apply_steps
from ddl_d2.forging.region_plans import draw_face, draw_region
from ddl_d2.forging.regions import REGIONS, region_polygons
from ddl_d2.forging.self_blend import NoSuitableFaceError, region_stages, self_blend
from ddl_d2.forging.soft_mask import face_square_side, soft_region_mask
from ddl_d2.forging.warp import displaced_points

NOTHING_CHANGES = {
    "drag_count": (0, 0),
    "move_prob": 0.0,
    "rgb_shift_prob": 0.0,
    "color_prob": 0.0,
    "tone_prob": 0.0,
    "frequency_prob": 0.0,
}


def make_image(shape=(220, 420, 3), seed=0):
    """Smooth texture with some noise, so that every change shows."""
    rng = np.random.default_rng(seed)
    values = cv2.GaussianBlur(rng.normal(128, 400, shape).astype(np.float32), (0, 0), 5) + rng.normal(0, 4, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def two_faces(synthetic_face):
    return [synthetic_face(center=(100.0, 100.0)), synthetic_face(center=(310.0, 100.0))]


def test_the_same_seed_gives_the_same_bytes(synthetic_face):
    image, faces = make_image(), two_faces(synthetic_face)
    before = image.copy()
    one, two = (self_blend(image, faces, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.mask, two.mask)
    assert one.record == two.record
    np.testing.assert_array_equal(image, before)
    other = self_blend(image, faces, np.random.default_rng(6))
    assert (other.image != one.image).any()


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["source", "target", "both"])
@pytest.mark.parametrize("seed", range(6))
def test_mask_and_changed_pixels_agree(seed, weights, synthetic_face):
    image, options = make_image(seed=seed), ForgeryOptions(appearance_weights=weights, ratios=(1.0,))
    forgery = self_blend(image, two_faces(synthetic_face), np.random.default_rng(seed), options)
    changed = (forgery.image != forgery.real).any(2)
    assert not (changed & (forgery.soft == 0)).any()  # nothing outside the soft mask
    np.testing.assert_array_equal(forgery.mask, forgery.soft > 0.5)
    assert forgery.mask.any()
    assert changed[forgery.mask].mean() > 0.8  # what is called forged was forged
    assert forgery.soft.dtype == np.float32
    assert forgery.soft.max() <= 1
    steps = forgery.record["source_appearance"]
    assert bool(steps) == (weights[1] == 0)
    np.testing.assert_array_equal(forgery.real, apply_steps(image, steps))
    regions = [region for face in forgery.record["faces"] for region in face["regions"]]
    assert all(bool(region["appearance"]) == (weights[0] == 0) for region in regions)


def test_a_target_like_its_source_changes_nothing(synthetic_face):
    image = make_image()
    forgery = self_blend(image, two_faces(synthetic_face), np.random.default_rng(0), ForgeryOptions(**NOTHING_CHANGES))
    np.testing.assert_array_equal(forgery.image, image)
    assert forgery.mask.any()


def test_only_the_ratio_of_the_target_is_mixed_in(synthetic_face):
    # a target 40 levels lighter, half of it: + 20 where the soft mask is 1
    image = np.full((220, 220, 3), 100, np.uint8)
    lighter = {**NOTHING_CHANGES, "rgb_shift_prob": 1.0, "rgb_shift": (40.0, 40.0), "appearance_weights": (0, 1, 0)}
    options = ForgeryOptions(**lighter, ratios=(0.5,), whole_face_prob=1.0)
    forgery = self_blend(image, [synthetic_face()], np.random.default_rng(0), options)
    assert np.unique(forgery.image[forgery.soft == 1]).tolist() == [120]
    assert np.unique(forgery.image[forgery.soft == 0]).tolist() == [100]


def test_windows_and_crops_change_no_pixel(synthetic_face):
    """The slow way: whole image displaced, whole mask, formula by formula."""
    image, face = make_image((260, 300, 3)), synthetic_face(center=(150.0, 130.0))
    options = ForgeryOptions(frequency_prob=0.0, tone_prob=0.0)  # what does not look at its surroundings
    for seed, region in enumerate(REGIONS):
        plan = draw_region(face, region, np.random.default_rng(seed), options)
        stages = region_stages(image, face, plan)
        x0, y0, x1, y1 = stages.box
        grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1)
        points = displaced_points(grid, plan.displacements).astype(np.float32)
        looks = apply_steps(image, plan.appearance)
        slow = cv2.remap(looks, points[..., 0], points[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(stages.warped.astype(int) - slow).max() <= 12  # coordinates rounded to 1/32 pixel
        whole = soft_region_mask(
            region_polygons(face.landmarks, region, area_factor=plan.area_factor),
            replace(plan.softening, elastic=None),
            box=(0, 0, 300, 260),
            side=face_square_side(face.landmarks),
        )[1]
        assert whole.sum() > 0
        outside = np.ones(image.shape[:2], bool)
        outside[y0:y1, x0:x1] = False
        assert not whole[outside].any()  # the box holds all of the soft mask


def test_faces_are_forged_independently_and_some_left_alone(synthetic_face):
    image, faces = make_image(), two_faces(synthetic_face)
    seen = set()
    for seed in range(30):
        forgery = self_blend(image, faces, np.random.default_rng(seed))
        flags = tuple(face["forged"] for face in forgery.record["faces"])
        halves = (forgery.mask[:, :205].any(), forgery.mask[:, 205:].any())
        assert flags == halves
        seen.add(flags)
    assert seen == {(True, True), (True, False), (False, True)}


def test_at_least_one_face_is_forged(synthetic_face):
    options = ForgeryOptions(face_prob=0.0)
    record = self_blend(make_image(), two_faces(synthetic_face), np.random.default_rng(0), options).record
    assert sum(face["forged"] for face in record["faces"]) == 1


def test_narrow_faces_are_forged_whole(synthetic_face):
    options = ForgeryOptions(whole_face_prob=0.0)
    faces = [synthetic_face(center=(60.0, 60.0), width=50.0)]
    (face,) = self_blend(make_image(), faces, np.random.default_rng(0), options).record["faces"]
    assert [region["region"] for region in face["regions"]] == ["face"]


def test_drags_do_not_fold(synthetic_face):
    for seed in range(20):
        record = self_blend(make_image(), two_faces(synthetic_face), np.random.default_rng(seed)).record
        for face in record["faces"]:
            for region in face["regions"]:
                for move in region["displacements"]:
                    if move["kind"] == "drag":
                        length = np.linalg.norm(np.subtract(move["target"], move["center"]))
                        assert length <= move["radius"] / 3 + 0.01  # the record's digits


def test_the_record_is_json(synthetic_face):
    record = self_blend(make_image(), two_faces(synthetic_face), np.random.default_rng(1)).record
    assert json.loads(json.dumps(record))["faces"][0]["box"]


def test_a_face_at_the_edge(synthetic_face):
    image = make_image((160, 160, 3))
    forgery = self_blend(image, [synthetic_face(center=(50.0, 80.0), width=120.0)], np.random.default_rng(2))
    assert forgery.image.shape == image.shape
    assert forgery.mask.any()


@pytest.mark.parametrize(("center", "width"), [((100.0, 100.0), 12.0), ((-300.0, 50.0), 100.0)])
def test_no_suitable_face_is_an_error(center, width, synthetic_face):
    with pytest.raises(NoSuitableFaceError, match="none of 1 faces"):
        self_blend(make_image(), [synthetic_face(center=center, width=width)], np.random.default_rng(0))
    with pytest.raises(NoSuitableFaceError, match="no face is found"):
        self_blend(make_image(), [], np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(40))
def test_a_forgery_is_never_without_forged_pixels(seed, synthetic_face):
    rng = np.random.default_rng(seed)
    faces = [synthetic_face(center=rng.uniform(0, 160, 2), width=float(rng.uniform(20, 200))) for _ in range(2)]
    options = ForgeryOptions(mosaic_prob=0.5, noise_prob=0.5, jpeg_prob=0.5, frequency=("blur", "downscale"))
    try:
        forgery = self_blend(make_image((140, 160, 3)), faces, rng, options)
    except NoSuitableFaceError:
        return
    assert forgery.mask.any()
    assert any(face["forged"] for face in forgery.record["faces"])
    assert not (forgery.image != forgery.real).any(2)[forgery.soft == 0].any()


def test_bad_input_is_refused(synthetic_face):
    face = synthetic_face()
    with pytest.raises(ValueError, match="uint8"):
        self_blend(make_image().astype(np.float32), [face], np.random.default_rng(0))
    with pytest.raises(ValueError, match="5 landmarks"):
        self_blend(make_image(), [Face(face.box, face.landmarks[:5])], np.random.default_rng(0))


def test_regions_and_their_area_factors(synthetic_face):
    ranges = {
        "mouth": (0.9, 1.3),
        "nose": (0.85, 1.15),
        "face": (0.9, 1.1),
        "left_eye": (0.8, 1.2),
        "brows": (0.8, 1.2),
    }
    seen = {region: [] for region in REGIONS}
    for seed in range(300):
        plans = draw_face(synthetic_face(), np.random.default_rng(seed), ForgeryOptions())
        assert len({plan.region for plan in plans}) == len(plans) <= 3
        for plan in plans:
            seen[plan.region].append(plan.area_factor)
    assert all(seen.values())  # every region is drawn
    for region, (low, high) in ranges.items():
        assert low <= min(seen[region]) <= max(seen[region]) <= high
    assert max(seen["face"]) > 1.05
    assert min(seen["face"]) < 0.95


def test_many_faces_in_an_instant(synthetic_face):
    """Far below what the engine can do: it catches work on the whole image for every face."""
    image = np.full((2000, 3000, 3), 90, np.uint8)
    faces = [synthetic_face(center=(100.0 + 90 * i, 150.0), width=60.0) for i in range(29)]
    started = time.process_time()
    forgery = self_blend(image, faces, np.random.default_rng(0), ForgeryOptions(appearance_weights=(0, 1, 0)))
    assert time.process_time() - started < 1.5
    assert 10 < sum(face["forged"] for face in forgery.record["faces"]) < 29


def test_a_photograph(astronaut, astronaut_face):
    forgery = self_blend(astronaut, [astronaut_face], np.random.default_rng(4))
    changed = (forgery.image != forgery.real).any(2)
    assert not changed[forgery.soft == 0].any()
    # a forged face of about 90 pixels changes well under a tenth of 512 x 512, and visibly inside
    assert 0 < forgery.mask.mean() < 0.05
    difference = np.abs(forgery.image.astype(int) - forgery.real)[forgery.mask].mean()
    assert 0.3 < difference < 60
