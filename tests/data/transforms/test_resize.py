import numpy as np
import pytest
from PIL import Image

from ddl_d2.data.transforms.resize import AntialiasedResize, ResizeToFit, fitted_size


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
