import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from ddl_d2.data.transforms.degradations import JpegRecompress, RandomBlur, RandomGray, RandomNoise


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_jpeg_recompression(rng):
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8), (0, 0), 4)
    np.random.seed(0)
    again = [JpegRecompress(1.0, (q, q)).get_transform(smooth).apply_image(smooth) for q in (95, 30)]
    errors = [np.abs(x.astype(int) - smooth).mean() for x in again]
    assert 0 < errors[0] < errors[1] < 8
    assert JpegRecompress(0.0, (40, 95)).get_transform(smooth).apply_image(smooth) is smooth
    tiny = JpegRecompress(1.0, (50, 60)).get_transform(smooth).apply_image(smooth[:1, :1])
    assert tiny.shape == (1, 1, 3)


def test_gray_by_hand():
    # .299 * 200 + .587 * 100 + .114 * 50 = 59.8 + 58.7 + 5.7 = 124.2
    image = np.full((3, 5, 3), (200, 100, 50), np.uint8)
    assert (RandomGray(1.0).get_transform(image).apply_image(image) == 124).all()


def test_noise_has_the_variance_it_is_asked_for():
    """Rounding adds 1/12; of 180,000 values the variance is known to a standard error of 0.33 percent."""
    image = np.full((200, 300, 3), 128, np.uint8)
    np.random.seed(0)
    for variance in (10.0, 60.0):
        noisy = RandomNoise(1.0, (variance, variance)).get_transform(image).apply_image(image)
        difference = noisy.astype(float) - 128
        assert difference.var() == pytest.approx(variance + 1 / 12, rel=0.015)
        assert abs(difference.mean()) < 4 * np.sqrt(variance / difference.size)
        pixels = difference.reshape(-1, 3)
        assert abs(np.corrcoef(pixels[:, 0], pixels[:, 1])[0, 1]) < 0.02  # each channel its own
        assert abs(np.corrcoef(difference[:, :-1].ravel(), difference[:, 1:].ravel())[0, 1]) < 0.02
        # as normal numbers: within one and two sigma, whole gray levels allowed for
        for sigmas, share in ((1, 0.683), (2, 0.954)):
            level = np.floor(sigmas * np.sqrt(variance)) + 0.5
            exact = share + 0.48 * (level / np.sqrt(variance) - sigmas) * np.exp(-(sigmas**2 - 1) / 2)
            assert (np.abs(difference) < level).mean() == pytest.approx(exact, abs=0.01)


def test_noise_is_the_transforms_own():
    """One transform gives the same noise twice (an image and its partner), two transforms do not."""
    image = np.full((16, 16, 3), 128, np.uint8)
    np.random.seed(0)
    one, two = (RandomNoise(1.0).get_transform(image) for _ in range(2))
    np.testing.assert_array_equal(one.apply_image(image), one.apply_image(image))
    assert (one.apply_image(image) != two.apply_image(image)).mean() > 0.5


def test_gaussian_blur_is_opencvs_kernel_for_its_size():
    """The spread of a single bright point: OpenCV's sigma for k = 3, 7, 11 is 0.8, 1.4, 2."""
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    point = cv2.GaussianBlur(point, (0, 0), 2.5) * 8  # enough gray levels to measure
    place = np.arange(41) - 20

    def spread(image):
        weight = image[:, :, 0].astype(float).sum(0)
        return (weight * place**2).sum() / weight.sum()

    for size, sigma in ((3, 0.8), (7, 1.4), (11, 2.0)):
        np.random.seed(0)
        blurred = RandomBlur(1.0, kinds=["gaussian"], kernel=(size, size)).get_transform(point).apply_image(point)
        assert spread(blurred) - spread(point) == pytest.approx(sigma**2, rel=0.2)


def test_motion_blur_averages_along_a_line():
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4] = 255
    np.random.seed(0)
    transform = RandomBlur(1.0, kinds=["motion"], motion=(5, 5)).get_transform(image)
    transform.steps[0]["angle"] = 0.0
    blurred = transform.apply_image(image)[:, :, 0]
    assert blurred[4].tolist() == [0, 0, 51, 51, 51, 51, 51, 0, 0]  # 255 / 5
    assert blurred.sum() == 255
    transform.steps[0]["angle"] = 90.0
    np.testing.assert_array_equal(transform.apply_image(image)[:, :, 0], blurred.T)


def test_sizes_of_blurs_are_odd_and_all_of_their_range():
    image = np.zeros((4, 4, 3), np.uint8)
    np.random.seed(0)
    blur = RandomBlur(1.0, kinds=["motion"], motion=(3, 7))
    assert {blur.get_transform(image).steps[0]["length"] for _ in range(60)} == {3, 5, 7}
    both = RandomBlur(1.0)
    names = [both.get_transform(image).steps[0]["name"] for _ in range(200)]
    assert 70 < names.count("blur") < 130


def test_off_is_off(rng):
    image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    for step in (RandomGray(0.0), RandomNoise(0.0), RandomBlur(0.0)):
        assert isinstance(step.get_transform(image), T.NoOpTransform)
