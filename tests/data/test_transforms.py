import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from ddl_d2.data.transforms import (
    AntialiasedResize,
    JpegRecompress,
    PhotometricDistortion,
    PointwiseColour,
    RandomCropKeepingForgery,
    RandomFlip,
    ResizeAndCrop,
    ResizeToFit,
    affine_table,
    fitted_size,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# The shortest edge becomes 512 unless the longest would pass 2048 (aspect above 4). By hand:
# 300 x 400: 512/300; 1000 x 5000: 2048/5000 -> 409.6; 1 x 4000: 2048/4000 -> 0.512.
@pytest.mark.parametrize(
    ("size", "fitted"),
    [((300, 400), (512, 683)), ((400, 300), (683, 512)), ((1000, 5000), (410, 2048)), ((1, 4000), (1, 2048)),
     ((1, 1), (512, 512)), ((512, 2048), (512, 2048)), ((1, 10_000), (1, 2048))],
)  # fmt: skip
def test_fitted_size(size, fitted):
    assert fitted_size(*size, 512, 2048) == fitted


def test_fitted_size_with_a_factor():
    assert fitted_size(300, 400, 512, 2048, 0.5) == (256, 341)
    assert fitted_size(1000, 5000, 512, 2048, 2.0) == (819, 4096)


@pytest.mark.parametrize("target", [(7, 5), (64, 64), (1, 200), (120, 1), (50, 83)])
def test_resize_is_pillows_to_one_grey_level(rng, target):
    image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR))
    resized = AntialiasedResize((37, 53), target).apply_image(image)
    difference = np.abs(resized.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < (0.01 if min(target) > 1 else 0.5)


def test_a_mask_keeps_its_place_and_its_share(rng):
    mask = np.zeros((90, 120), np.uint8)
    mask[30:60, 40:80] = 1
    half = AntialiasedResize((90, 120), (45, 60)).apply_segmentation(mask)
    expected = np.zeros((45, 60), np.uint8)
    expected[15:30, 20:40] = 1
    np.testing.assert_array_equal(half, expected)
    third = AntialiasedResize((90, 120), (30, 40)).apply_segmentation(mask)
    assert third.sum() == 10 * 13 or third.sum() == 10 * 14
    assert set(np.unique(AntialiasedResize((90, 120), (77, 311)).apply_segmentation(mask))) == {0, 1}


def test_points_move_with_the_picture():
    resize = AntialiasedResize((10, 20), (30, 10))
    np.testing.assert_allclose(resize.apply_coords(np.array([[20.0, 10.0], [2, 1]])), [[10, 30], [1, 3]])
    np.testing.assert_allclose(resize.inverse().apply_coords(np.array([[10.0, 30.0]])), [[20, 10]])


def test_resize_to_fit_scales_within_its_range(rng):
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.random.seed(0)
    heights = [ResizeToFit(32, 999, (0.5, 2.0)).get_transform(image).apply_image(image).shape[0] for _ in range(200)]
    assert 16 <= min(heights) < 20
    assert 60 < max(heights) <= 64
    fixed = ResizeToFit(40, 999).get_transform(image)
    assert fixed.apply_image(image) is image
    sizes = {ResizeToFit((20, 40), 999).get_transform(image).apply_image(image).shape[0] for _ in range(30)}
    assert sizes == {20, 40}


def crops(mask, size, count=50, **options):
    crop = RandomCropKeepingForgery(size, **options)
    image = np.repeat(np.arange(mask.size).reshape(mask.shape)[:, :, None], 3, axis=2).astype(np.float32)
    for seed in range(count):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=mask)
        crop(given)
        yield given.image[:, :, 0], given.sem_seg


def test_crops_of_a_fake_show_forged_pixels():
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1  # a random 40 x 40 crop misses it about 1 in 40 times at most after ten draws
    shown = [seg for _, seg in crops(mask, (40, 40), retries=10)]
    assert all(seg.shape == (40, 40) for seg in shown)
    assert sum(bool(seg.any()) for seg in shown) == 50
    alone = [seg for _, seg in crops(mask, (40, 40), retries=1)]
    assert sum(bool(seg.any()) for seg in alone) < 50


def test_crops_are_not_filled_by_one_class():
    mask = np.zeros((60, 200), np.uint8)
    mask[:, 100:] = 1
    limited = [max(seg.mean(), 1 - seg.mean()) for _, seg in crops(mask, (40, 40), retries=50)]
    assert max(limited) < 0.75
    free = [seg.any() for _, seg in crops(mask, (40, 40), retries=50, single_category_max_area=1.0)]
    assert all(free)


def test_crops_of_a_real_picture_take_one_draw_and_cover_it():
    mask = np.zeros((20, 30), np.uint8)
    corners = {float(image[0, 0]) for image, _ in crops(mask, (19, 28), count=200)}
    assert corners == {0.0, 1.0, 2.0, 30.0, 31.0, 32.0}


@pytest.mark.parametrize("size", [(5, 200), (200, 5), (1, 1), (64, 64)])
def test_small_pictures_are_not_padded(size):
    for image, seg in crops(np.ones(size, np.uint8), (64, 64), count=3):
        assert image.shape == seg.shape == (min(size[0], 64), min(size[1], 64))


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (20, 300), (33, 9), (1, 1)])
def test_resizing_and_cropping_at_once_is_one_after_the_other(rng, size):
    """The same draws, the same mask, and the same pixels to one grey level; 64 x 64 fits as it is."""
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 3 : size[0] // 2 + 1, size[1] // 3 : size[1] // 2 + 1] = 1
    for scales in ((0.5, 2.0), (1.0, 1.0), (0.3, 0.6)):
        resize, crop = ResizeToFit(64, 256, scales), RandomCropKeepingForgery((48, 40))
        for seed in range(12):
            np.random.seed(seed)
            expected = T.AugInput(image, sem_seg=mask)
            T.AugmentationList([resize, crop])(expected)
            next_draw = np.random.random()
            np.random.seed(seed)
            given = T.AugInput(image, sem_seg=mask)
            transform = ResizeAndCrop(resize, crop)(given)
            assert np.random.random() == next_draw
            np.testing.assert_array_equal(given.sem_seg, expected.sem_seg)
            np.testing.assert_array_equal(transform.apply_segmentation(mask.copy()), expected.sem_seg)
            assert given.image.shape == expected.image.shape
            assert np.abs(given.image.astype(int) - expected.image).max() <= 1


def test_points_move_with_resize_and_crop():
    image, mask = np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), np.uint8)
    np.random.seed(0)
    resize = ResizeToFit(20, 999)
    transform = ResizeAndCrop(resize, RandomCropKeepingForgery((10, 10))).get_transform(image, mask)
    left, top = transform.crop.x0, transform.crop.y0
    np.testing.assert_allclose(transform.apply_coords(np.array([[30.0, 20.0]])), [[15 - left, 10 - top]])


@pytest.mark.parametrize("vertical", [False, True])
def test_flips_are_detectron2s_in_new_memory(rng, vertical):
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mask = rng.integers(0, 2, (5, 7), dtype=np.uint8)
    flipped = 0
    for seed in range(20):
        results = []
        for kind in (T.RandomFlip, RandomFlip):
            np.random.seed(seed)
            given = T.AugInput(image, sem_seg=mask)
            transform = kind(horizontal=not vertical, vertical=vertical)(given)
            results.append((given.image, given.sem_seg, transform.apply_coords(np.array([[1.0, 2.0]]))))
        for theirs, ours in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert results[1][0].flags.c_contiguous
        flipped += results[1][0] is not image
    assert 3 < flipped < 17


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
        colour = PointwiseColour(
            contrasts[brightness] if first else brightness,
            shifted,
            affine_table(gain=saturation),
            identity if first else contrasts,
        )
        np.testing.assert_array_equal(
            colour.apply_image(img), plain_distortion(img, before, contrast, first, saturation, hue)
        )


@pytest.mark.parametrize("size", [(31, 47), (4, 1), (1, 4), (1, 1)])
@pytest.mark.parametrize("shift", [-255, -32, -0.5, 0.5, 31.7, 255])
def test_brightness_by_adding_is_the_table(rng, size, shift):
    img = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    identity, table = np.arange(256, dtype=np.uint8), affine_table(offset=shift)
    found = PointwiseColour(table, identity, identity, identity).apply_image(img)
    np.testing.assert_array_equal(found, table[img])
    dimmed = PointwiseColour(identity, identity, affine_table(gain=1 - 1e-4), identity).apply_image(img)
    assert dimmed.shape == img.shape  # one plane of 4 x 1 pixels must not pass for a scalar


def test_single_steps_equal_detectron2(rng, monkeypatch):
    """Detectron2's own class with its coins fixed so that exactly one step is taken."""
    colour = pytest.importorskip("detectron2.projects.point_rend.color_augmentation")
    img = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    theirs = colour.ColorAugSSDTransform("RGB")
    identity = np.arange(256, dtype=np.uint8)
    monkeypatch.setattr(colour.random, "randrange", lambda _: 1)
    monkeypatch.setattr(colour.random, "uniform", lambda low, high: high * 0.9)
    monkeypatch.setattr(colour.random, "randint", lambda low, high: -13)
    shifted = ((np.arange(256) - 13) % 180).astype(np.uint8)
    bgr = np.ascontiguousarray(img[:, :, ::-1])
    for step, mine in {
        "brightness": PointwiseColour(affine_table(offset=32 * 0.9), identity, identity, identity),
        "contrast": PointwiseColour(identity, identity, identity, affine_table(gain=1.5 * 0.9)),
        "saturation": PointwiseColour(identity, identity, affine_table(gain=1.5 * 0.9), identity),
        "hue": PointwiseColour(identity, shifted, identity, identity),
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


def test_jpeg_recompression(rng):
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8), (0, 0), 4)
    np.random.seed(0)
    again = [JpegRecompress(1.0, (q, q)).get_transform(smooth).apply_image(smooth) for q in (95, 30)]
    errors = [np.abs(x.astype(int) - smooth).mean() for x in again]
    assert 0 < errors[0] < errors[1] < 8
    assert JpegRecompress(0.0, (40, 95)).get_transform(smooth).apply_image(smooth) is smooth
    tiny = JpegRecompress(1.0, (50, 60)).get_transform(smooth).apply_image(smooth[:1, :1])
    assert tiny.shape == (1, 1, 3)
