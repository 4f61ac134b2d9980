import cv2
import numpy as np
import pytest
from skimage import data as photographs

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.forging import camera
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.eigenfaces import Eigenfaces, alignment
from ddl_d2.forging.face_swap import forged_face, photographed, swap_pair
from ddl_d2.forging.swap_source import harmonized, matched, warped_to
from tests.conftest import synthetic_face

# Scikit-image's astronaut: where the face is.
POINTS = synthetic_face(center=(224.0, 115.0), width=95.0).landmarks
IMAGE = photographs.astronaut()


def _draw(seed: int) -> Draw:
    return Draw(np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_pair_and_another_one_another():
    first, again, other = (swap_pair(IMAGE, POINTS, np.random.default_rng(s), SwapOptions()) for s in (5, 5, 6))
    for name in ("real", "forged", "soft"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.real != other.real).any()


def test_a_pair_has_the_size_and_types_promised():
    pair = swap_pair(IMAGE, POINTS, np.random.default_rng(0), SwapOptions(size=96))
    assert pair.real.shape == pair.forged.shape == (96, 96, 3)
    assert pair.real.dtype == pair.forged.dtype == np.uint8
    assert pair.soft.shape == (96, 96)
    assert pair.soft.dtype == np.float32
    assert pair.soft.min() >= 0
    assert pair.soft.max() <= 1


@pytest.mark.parametrize("seed", range(40))
def test_nothing_but_the_mask_tells_the_halves_apart(seed):
    draw, options = _draw(seed), SwapOptions()
    real, points = photographed(IMAGE, POINTS, draw, options)
    target, forged, soft = forged_face(real, points, draw, options)
    changed = (target != forged).any(2)
    assert not changed[soft == 0].any()
    assert changed.any()
    assert soft.max() == 1


def test_the_photograph_is_not_changed():
    image = IMAGE.copy()
    for seed in range(5):
        swap_pair(image, POINTS, np.random.default_rng(seed), SwapOptions(h264_prob=1.0))
    np.testing.assert_array_equal(image, IMAGE)


def test_landmarks_follow_the_photograph():
    """A dot at a landmark is still at it after mirroring, cutting, shrinking, turning and tilting."""
    options = SwapOptions(camera_prob=0.0, rotate_prob=1.0, perspective=0.05, forged_at=(200.0, 230.0))
    for seed in range(10):
        image = np.zeros((400, 400, 3), np.uint8)
        points = synthetic_face(center=(200.0, 200.0), width=120.0).landmarks
        cv2.circle(image, (round(points[33][0]), round(points[33][1])), 4, (255, 255, 255), -1)
        shown, moved = photographed(image, points, _draw(seed), options)
        ys, xs = np.nonzero(shown[..., 0] > 100)
        assert np.hypot(xs.mean() - moved[33][0], ys.mean() - moved[33][1]) < 2.5


def test_warping_brings_points_to_their_goals():
    image = np.zeros((120, 120, 3), np.uint8)
    cv2.circle(image, (60, 60), 3, (255, 255, 255), -1)
    start = np.float32([[60, 60], [20, 20], [100, 20], [20, 100], [100, 100]])
    goal = start + np.float32([[6, -4], [0, 0], [0, 0], [0, 0], [0, 0]])
    ys, xs = np.nonzero(warped_to(image, start, goal, 80.0)[..., 0] > 100)
    assert abs(xs.mean() - 66) < 1
    assert abs(ys.mean() - 56) < 1


def test_matching_brings_the_mean_to_the_targets():
    source, target = np.full((40, 40, 3), 90, np.uint8), np.full((40, 40, 3), 150, np.uint8)
    mask = np.full((40, 40), 255, np.uint8)
    assert abs(int(matched(source, target, mask, 1.0).mean()) - 150) <= 1
    assert abs(int(matched(source, target, mask, 0.5).mean()) - 120) <= 1


def test_harmonizing_keeps_the_fine_structure_and_takes_the_colors():
    rng = np.random.default_rng(0)
    texture = rng.integers(-20, 20, (64, 64, 1))
    source, target = np.uint8(100 + texture).repeat(3, 2), np.full((64, 64, 3), 170, np.uint8)
    result = harmonized(source, target, 50.0, (0.1, 0.1), _draw(0)).astype(int)
    assert abs(result.mean() - 170) < 3
    assert np.corrcoef(result[..., 0].ravel(), texture.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("shape", [(64, 64), (63, 81)])
def test_h264_keeps_the_shape_and_about_the_image(shape):
    image = cv2.resize(IMAGE, shape[::-1], interpolation=cv2.INTER_AREA)
    coded = camera.h264(image, crf=20)
    assert coded.shape == image.shape
    assert coded.dtype == np.uint8
    assert 0 < np.abs(coded.astype(int) - image).mean() < 8
    coarse = camera.h264(image, crf=40)
    assert np.abs(coarse.astype(int) - image).mean() > np.abs(coded.astype(int) - image).mean()


def test_the_same_noise_for_the_same_seed():
    first, second = (camera.add_noise(IMAGE[:50, :50], sigma=5.0, seed=3, gray=True) for _ in range(2))
    np.testing.assert_array_equal(first, second)


class TestEigenfaces:
    @pytest.fixture(scope="class")
    def eigenfaces(self):
        faces = [(np.roll(IMAGE, shift, axis=1), POINTS + np.array([shift, 0])) for shift in range(0, 12, 2)]
        rng = np.random.default_rng(0)
        faces = [(np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8), p) for image, p in faces]
        return Eigenfaces.fitted(faces, side=32, count=6)

    def test_components_are_orthonormal(self, eigenfaces):
        np.testing.assert_allclose(eigenfaces.components @ eigenfaces.components.T, np.eye(6), atol=1e-3)

    def test_a_known_face_is_rebuilt(self, eigenfaces):
        rebuilt = eigenfaces.rebuilt(IMAGE, POINTS, _draw(1))
        assert rebuilt.shape == IMAGE.shape
        assert rebuilt.dtype == np.uint8
        x, y = np.rint(POINTS.mean(0)).astype(int)
        inside = slice(y - 25, y + 25), slice(x - 25, x + 25)
        error = np.abs(rebuilt[inside].astype(int) - IMAGE[inside]).mean()
        assert error < 25
        assert error < np.abs(int(IMAGE.mean()) - IMAGE[inside].astype(int)).mean()

    def test_alignment_puts_the_eyes_level(self):
        matrix = alignment(POINTS, 100)
        left, right = (matrix @ [*POINTS[part].mean(0), 1] for part in (slice(36, 42), slice(42, 48)))
        assert abs(left[1] - right[1]) < 2
        assert right[0] - left[0] > 25
