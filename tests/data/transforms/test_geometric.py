import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from PIL import Image

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.transforms.build import build_augmentations
from ddl_d2.data.transforms.geometric import (
    AffineTransform,
    AntialiasedResize,
    QuarterTurns,
    RandomCropKeepingForgery,
    RandomFlip,
    RandomQuarterTurns,
    RandomShiftScaleRotate,
    ResizeAndCrop,
    ResizeToFit,
    fitted_size,
)
from ddl_d2.errors import ConfigError


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
def test_resize_is_pillows_to_one_gray_level(rng, target):
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


def test_points_move_with_the_image():
    resize = AntialiasedResize((10, 20), (30, 10))
    np.testing.assert_allclose(resize.apply_coords(np.array([[20.0, 10.0], [2, 1]])), [[10, 30], [1, 3]])
    np.testing.assert_allclose(resize.inverse().apply_coords(np.array([[10.0, 30.0]])), [[20, 10]])


def test_resize_to_fit_scales_within_its_range(rng):
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.random.seed(0)
    heights = [ResizeToFit(32, 999, (0.5, 2.0)).get_transform(image).apply_image(image).shape[0] for _ in range(200)]
    assert 16 <= min(heights) < 20
    assert 60 < max(heights) <= 64
    for size in (40, 0):  # its own; or any, as in Detectron2
        assert ResizeToFit(size, 999).get_transform(image).apply_image(image) is image
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


def test_crops_of_a_real_image_take_one_draw_and_cover_it():
    mask = np.zeros((20, 30), np.uint8)
    corners = {float(image[0, 0]) for image, _ in crops(mask, (19, 28), count=200)}
    assert corners == {0.0, 1.0, 2.0, 30.0, 31.0, 32.0}


@pytest.mark.parametrize("size", [(5, 200), (200, 5), (1, 1), (64, 64)])
def test_small_images_are_not_padded(size):
    for image, seg in crops(np.ones(size, np.uint8), (64, 64), count=3):
        assert image.shape == seg.shape == (min(size[0], 64), min(size[1], 64))


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (20, 300), (33, 9), (1, 1)])
def test_resizing_and_cropping_at_once_is_one_after_the_other(rng, size):
    """The same draws, the same mask, and the same pixels to one gray level; 64 x 64 fits as it is."""
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


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_quarter_turns_are_numpys_and_points_go_along(turns):
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    turn = QuarterTurns(turns, (5, 7))
    turned = turn.apply_image(image)
    np.testing.assert_array_equal(turned, np.rot90(image, turns))
    np.testing.assert_array_equal(turn.apply_segmentation(image[:, :, 0]), turned[:, :, 0])
    # the middle of the pixel in row 1, column 4
    ((x, y),) = turn.apply_coords(np.array([[4.5, 1.5]]))
    assert turned[int(y), int(x)].tolist() == image[1, 4].tolist()
    np.testing.assert_allclose(turn.inverse().apply_coords(np.array([[x, y]])), [[4.5, 1.5]])
    np.testing.assert_array_equal(turn.inverse().apply_image(turned), image)
    x0, y0, x1, y1 = turn.apply_box(np.array([[1.0, 1.0, 3.0, 2.0]]))[0]
    assert sorted([x1 - x0, y1 - y0]) == [1, 2]


def test_quarter_turns_are_evenly_drawn():
    image = np.zeros((4, 6, 3), np.uint8)
    np.random.seed(0)
    drawn = [getattr(RandomQuarterTurns(1.0).get_transform(image), "turns", 0) for _ in range(400)]
    assert all(70 < drawn.count(turns) < 130 for turns in range(4))
    assert all(isinstance(RandomQuarterTurns(0.0).get_transform(image), T.NoOpTransform) for _ in range(20))


def test_a_shift_by_whole_pixels_moves_image_mask_and_points_alike(rng):
    image = rng.integers(1, 256, (6, 9, 3), dtype=np.uint8)
    mask = np.zeros((6, 9), np.uint8)
    mask[2:4, 3:5] = 1
    shift = AffineTransform(np.array([[1.0, 0, 2], [0, 1, -1]]))
    moved = shift.apply_image(image)
    np.testing.assert_array_equal(moved[:5, 2:], image[1:, :7])
    assert not moved[:, :2].any()  # black comes in from the left
    assert not moved[5].any()
    expected = np.zeros((6, 9), np.uint8)
    expected[1:3, 5:7] = 1
    np.testing.assert_array_equal(shift.apply_segmentation(mask), expected)
    np.testing.assert_allclose(shift.apply_coords(np.array([[3.0, 2.0]])), [[5, 1]])
    np.testing.assert_allclose(shift.apply_box(np.array([[3.0, 2, 5, 4]])), [[5, 1, 7, 3]])
    np.testing.assert_allclose(shift.inverse().apply_coords(np.array([[5.0, 1.0]])), [[3, 2]])


def test_a_quarter_of_a_turn_by_a_matrix_is_a_quarter_turn(rng):
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    matrix = cv2.getRotationMatrix2D((4, 4), 90, 1.0)
    np.testing.assert_array_equal(AffineTransform(matrix).apply_image(image), np.rot90(image))
    points = np.array([[1.0, 2.0], [8.0, 0.0]])
    np.testing.assert_allclose(
        AffineTransform(matrix).apply_coords(points), QuarterTurns(1, (8, 8)).apply_coords(points), atol=1e-9
    )


def test_shift_scale_rotate_keeps_to_its_ranges():
    image = np.zeros((100, 200, 3), np.uint8)
    np.random.seed(0)
    matrices = [RandomShiftScaleRotate(1.0).get_transform(image).matrix for _ in range(500)]
    factors = np.array([np.sqrt(np.linalg.det(m[:, :2])) for m in matrices])
    angles = np.array([np.rad2deg(np.arctan2(m[0, 1], m[0, 0])) for m in matrices])
    # The middle of the image only shifts: 1/16 of 200 and of 100 pixels at most.
    shifts = np.array([m @ (100, 50, 1) - (100, 50) for m in matrices])
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2
    assert -45 <= angles.min() < -43
    assert 43 < angles.max() <= 45
    assert (np.abs(shifts) <= (12.5, 6.25)).all()
    assert (np.abs(shifts).max(0) > (12, 6)).all()
    with pytest.raises(ValueError, match="scale below 1"):
        RandomShiftScaleRotate(1.0, scale=1.0)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.COLOR_AUG_SSD = False, "none", False
    return cfg


ALL = ["VERTICAL_FLIP", "QUARTER_TURNS", "AFFINE", "GRAY", "COLOR", "NOISE", "BLUR"]


def test_the_list_of_a_config(cfg):
    assert [type(step).__name__ for step in build_augmentations(cfg, True)] == ["ResizeToFit"]
    for name in ALL:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 1.0
    cfg.INPUT.JPEG_PROB, cfg.INPUT.COLOR_AUG_SSD = 1.0, True
    assert [type(step).__name__ for step in build_augmentations(cfg, True)] == [
        "ResizeToFit", "RandomFlip", "RandomQuarterTurns", "RandomShiftScaleRotate", "PhotometricDistortion",
        "RandomGray", "RandomColor", "RandomNoise", "RandomBlur", "JpegRecompress",
    ]  # fmt: skip
    assert [type(step).__name__ for step in build_augmentations(cfg, False)] == ["ResizeToFit"]


@pytest.mark.parametrize("size", [(40, 60), (33, 9), (1, 1), (4, 1)])
def test_the_whole_list_repeats_and_moves_mask_and_image_alike(cfg, size):
    """White where forged, black elsewhere: with what moves pixels alone, the mask is the image cut at one half."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2 + 1, size[1] // 3 :] = 1
    image = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
    for name in ALL[:3]:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 0.7
    for seed in range(12):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=mask)
        T.AugmentationList(build_augmentations(cfg, True)[1:])(given)
        np.testing.assert_array_equal(given.sem_seg, given.image[:, :, 0] >= 128)
    for name in ALL:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 0.7
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=mask)
        T.AugmentationList(build_augmentations(cfg, True)[1:])(given)
        assert given.image.dtype == np.uint8
        assert given.image.shape[:2] == given.sem_seg.shape
        results.append((given.image.tobytes(), given.sem_seg.tobytes()))
    assert results[0] == results[1]
    assert results[0] != results[2] or size != (40, 60)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("VERTICAL_FLIP_PROB", 1.5, "VERTICAL_FLIP_PROB is 1.5"), ("COPY_MOVE_PROB", -0.1, "COPY_MOVE_PROB"),
     ("SCALE", 1.0, "scale below 1"), ("COLOR_KINDS", ["sepia"], "sepia"), ("BLUR_KINDS", [], "gaussian, motion"),
     ("BLUR_KERNEL", [4, 8], "odd"), ("NOISE_VARIANCE", [60.0, 10.0], "variance"), ("HSV", [1, 2, -3], "hsv")],
)  # fmt: skip
def test_values_out_of_their_limits(cfg, key, value, says):
    cfg.INPUT.AUGMENT[key] = value
    with pytest.raises(ConfigError, match=rf"INPUT\.AUGMENT.*{says}"):
        build_augmentations(cfg, True)
