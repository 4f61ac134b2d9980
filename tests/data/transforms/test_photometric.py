import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from ddl_d2.data.transforms.photometric import (
    AppearanceSteps,
    PhotometricDistortion,
    PointwiseColor,
    RandomColor,
    affine_table,
)

IDENTITY = np.arange(256, dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_affine_table_clips_and_cuts():
    table = affine_table(gain=1.5, offset=-32)
    assert [int(table[v]) for v in (0, 22, 23, 100, 255)] == [0, 1, 2, 118, 255]


def plain_distortion(img, before, contrast, contrast_first, saturation, hue):
    """The same steps one after the other on float values, as SSD describes them."""

    def affine(x, gain=1.0, offset=0.0):
        return np.clip(x.astype(np.float32) * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)

    img = affine(img, offset=before)
    if contrast_first:
        img = affine(img, gain=contrast)
    hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
    hsv[:, :, 1] = affine(hsv[:, :, 1], gain=saturation)
    hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + hue) % 180
    img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return img if contrast_first else affine(img, gain=contrast)


def test_tables_equal_the_steps(rng):
    img = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    for _ in range(30):
        before, contrast, saturation = rng.uniform(-32, 32), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)
        hue, first = int(rng.integers(-18, 19)), bool(rng.integers(2))
        identity = np.arange(256, dtype=np.uint8)
        contrasts, brightness = affine_table(gain=contrast), affine_table(offset=before)
        shifted = ((np.arange(256) + hue) % 180).astype(np.uint8)
        color = PointwiseColor(
            contrasts[brightness] if first else brightness,
            shifted,
            affine_table(gain=saturation),
            identity if first else contrasts,
        )
        np.testing.assert_array_equal(
            color.apply_image(img), plain_distortion(img, before, contrast, first, saturation, hue)
        )


@pytest.mark.parametrize("size", [(31, 47), (4, 1), (1, 4), (1, 1)])
@pytest.mark.parametrize("shift", [-255, -32, -0.5, 0.5, 31.7, 255])
def test_brightness_by_adding_is_the_table(rng, size, shift):
    img = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    identity, table = np.arange(256, dtype=np.uint8), affine_table(offset=shift)
    found = PointwiseColor(table, identity, identity, identity).apply_image(img)
    np.testing.assert_array_equal(found, table[img])
    dimmed = PointwiseColor(identity, identity, affine_table(gain=1 - 1e-4), identity).apply_image(img)
    assert dimmed.shape == img.shape  # one plane of 4 x 1 pixels must not pass for a scalar


def test_single_steps_equal_detectron2(rng, monkeypatch):
    """Detectron2's own class with its coins fixed so that exactly one step is taken."""
    color = pytest.importorskip("detectron2.projects.point_rend.color_augmentation")
    img = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    theirs = color.ColorAugSSDTransform("RGB")
    identity = np.arange(256, dtype=np.uint8)
    monkeypatch.setattr(color.random, "randrange", lambda _: 1)
    monkeypatch.setattr(color.random, "uniform", lambda low, high: high * 0.9)
    monkeypatch.setattr(color.random, "randint", lambda low, high: -13)
    shifted = ((np.arange(256) - 13) % 180).astype(np.uint8)
    bgr = np.ascontiguousarray(img[:, :, ::-1])
    for step, mine in {
        "brightness": PointwiseColor(affine_table(offset=32 * 0.9), identity, identity, identity),
        "contrast": PointwiseColor(identity, identity, identity, affine_table(gain=1.5 * 0.9)),
        "saturation": PointwiseColor(identity, identity, affine_table(gain=1.5 * 0.9), identity),
        "hue": PointwiseColor(identity, shifted, identity, identity),
    }.items():
        np.testing.assert_array_equal(mine.apply_image(img), getattr(theirs, step)(bgr)[:, :, ::-1], err_msg=step)


def test_distortion_leaves_the_mask_and_varies(rng):
    img = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    mask = np.ones((8, 9), np.uint8)
    results = set()
    for seed in range(40):
        np.random.seed(seed)
        given = T.AugInput(img.copy(), sem_seg=mask)
        PhotometricDistortion()(given)
        assert given.sem_seg is mask
        assert given.image.dtype == np.uint8
        results.add(given.image.tobytes())
    assert len(results) > 30


def test_value_is_a_table_of_its_own(rng):
    img = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = affine_table(offset=-20)[hsv[:, :, 2]]
    darker = PointwiseColor(IDENTITY, IDENTITY, IDENTITY, IDENTITY, value=affine_table(offset=-20))
    np.testing.assert_array_equal(darker.apply_image(img), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def draws(kind, image, count=40, **options):
    for seed in range(count):
        np.random.seed(seed)
        transform = RandomColor(1.0, kinds=[kind], **options).get_transform(image)
        yield transform.apply_image(image)


def test_brightness_and_contrast_stay_in_their_ranges():
    gray = np.full((2, 2, 3), 100, np.uint8)
    values = [int(out[0, 0, 0]) for out in draws("brightness_contrast", gray, 300, brightness=0.1, contrast=0.1)]
    # 90 - 25.5 = 64.5 and 110 + 25.5 = 135.5, cut to integers
    assert 64 <= min(values) < 70
    assert 130 < max(values) <= 135


def test_principal_colors_of_a_red_image_shift_red_alone():
    """Red 0 or 255 by turns, else 0: the variance of red in [0, 1] is 1/4, so the shift is 255/4 times the number."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, ::2, 0] = 255
    np.random.seed(7)
    transform = RandomColor(1.0, kinds=["fancy_pca"], pca=0.1).get_transform(image)
    ((step,), offsets) = transform.steps, transform.steps[0]["offsets"]
    assert step["name"] == "shift_rgb"
    np.random.seed(7)
    np.random.uniform(), np.random.randint(1)
    largest = np.random.normal(0, 0.1, size=3)[2]  # of the component of the largest variance
    assert abs(offsets[0]) == pytest.approx(255 / 4 * abs(largest))
    assert offsets[1:] == [pytest.approx(0), pytest.approx(0)]


def test_hue_turns_and_stays_in_its_range():
    red = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    hues = [int(cv2.cvtColor(out, cv2.COLOR_RGB2HSV)[0, 0, 0]) for out in draws("hsv", red, 300, hsv=(20, 0, 0))]
    away = [min(hue, 180 - hue) for hue in hues]
    assert 18 <= max(away) <= 21  # one for the way through RGB
    assert min(hue for hue in hues if hue > 90) >= 159


def test_one_kind_at_a_time_each_as_likely():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.random.seed(0)
    color = RandomColor(0.5)
    drawn = [type(color.get_transform(image)).__name__ for _ in range(600)]
    assert 250 < drawn.count("NoOpTransform") < 350
    assert 60 < drawn.count("AppearanceSteps") < 140  # a third of the half
    assert 160 < drawn.count("PointwiseColor") < 240


def test_what_changes_looks_moves_nothing():
    mask, points = np.eye(4, dtype=np.uint8), np.array([[1.0, 2.0]])
    steps = AppearanceSteps([{"name": "gamma", "exponent": 2.0}])
    assert steps.apply_segmentation(mask) is mask
    assert steps.apply_coords(points) is points
    assert isinstance(steps.inverse(), T.NoOpTransform)


@pytest.mark.parametrize(
    "options", [{"kinds": ["sepia"]}, {"kinds": []}, {"contrast": 1.5}, {"pca": -1}, {"hsv": (1, 2)}]
)
def test_bad_ranges(options):
    with pytest.raises(ValueError, match=r"sepia|changes of color|must not"):
        RandomColor(0.5, **options)
    with pytest.raises(ValueError, match="within 0 and 1"):
        RandomColor(1.1)
