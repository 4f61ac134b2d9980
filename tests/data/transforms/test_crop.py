import numpy as np
import pytest
from detectron2.data import transforms as T

from ddl_d2.data.transforms.crop import RandomCropKeepingForgery, ResizeAndCrop
from ddl_d2.data.transforms.resize import ResizeToFit


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
