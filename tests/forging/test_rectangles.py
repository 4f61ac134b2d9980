import numpy as np
import pytest

from ddl_d2.forging.rectangles import copy_move, inpaint


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask.sum() == len(rows) * len(columns)  # one rectangle
    return rows[0], columns[0], len(rows), len(columns)


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_is_somewhere_else_in_the_image(image, seed):
    before = image.copy()
    forged, mask = copy_move(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(forged[~mask], image[~mask])
    top, left, height, width = box_of(mask)
    pasted = forged[top : top + height, left : left + width]
    places = [
        (y, x)
        for y in range(60 - height + 1)
        for x in range(90 - width + 1)
        if np.array_equal(image[y : y + height, x : x + width], pasted)
    ]
    assert len(places) == 1
    assert places[0] != (top, left)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(60, 90), (700, 40)])
def test_a_hole_is_filled_from_around_it(seed, shape):
    """What was in the hole leaves no trace: white there, all else one gray."""
    gray = np.full((*shape, 3), 90, np.uint8)
    _, mask = inpaint(gray, np.random.default_rng(seed))
    box_of(mask)
    image = gray.copy()
    image[mask] = 255
    forged, same_mask = inpaint(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(same_mask, mask)
    np.testing.assert_array_equal(forged[~mask], image[~mask])
    np.testing.assert_array_equal(forged[mask], inpaint(gray, np.random.default_rng(seed))[0][mask])
    assert np.abs(forged.astype(int) - 90).max() <= 3  # the methods round


def test_sides_are_within_their_range(image):
    heights, widths = [], []
    for seed in range(200):
        mask = copy_move(image, np.random.default_rng(seed), (0.1, 0.5))[1]
        if mask.any():
            _, _, height, width = box_of(mask)
            heights.append(height)
            widths.append(width)
    assert (min(heights), max(heights)) == (6, 30)  # of 60
    assert (min(widths), max(widths)) == (9, 45)  # of 90


@pytest.mark.parametrize("how", [copy_move, inpaint])
def test_the_same_seed_gives_the_same_bytes(image, how):
    one, two = (how(image, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert not np.array_equal(one[0], how(image, np.random.default_rng(6))[0])


@pytest.mark.parametrize("how", [copy_move, inpaint])
def test_an_image_of_one_pixel_is_left_alone(how):
    image = np.full((1, 1, 3), 7, np.uint8)
    forged, mask = how(image, np.random.default_rng(0))
    assert not mask.any()
    np.testing.assert_array_equal(forged, image)
