import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from ddl_d2.data.transforms.geometric import (
    AffineTransform,
    QuarterTurns,
    RandomFlip,
    RandomQuarterTurns,
    RandomShiftScaleRotate,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
