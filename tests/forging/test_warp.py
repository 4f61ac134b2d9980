import numpy as np
import pytest

from ddl_d2.forging.warp import (
    Drag,
    Scale,
    displaced_points,
    drag_points,
    moved_points,
    sample,
    sampled_box,
    sampling_maps,
    scale_points,
)

DRAG = Drag(center=(0.0, 0.0), target=(0.0, -4.0), radius=10.0)


def displace(image, moves):
    height, width = image.shape[:2]
    return sample(image, sampling_maps((0, 0, width, height), moves))


# alpha = ((r² - d²) / ((r² - d²) + 16))²; u = x - alpha (0, -4) = x + (0, 4 alpha).
@pytest.mark.parametrize(
    ("x", "alpha"),
    [
        ((0, 0), (100 / 116) ** 2),  # .743163 -> u = (0, 2.972652)
        ((3, 0), (91 / 107) ** 2),  # .723295 -> u = (3, 2.893178)
        ((5, 5), (50 / 66) ** 2),  # .573921 -> u = (5, 7.295684)
        ((6, 8), 0.0),  # on the circle
        ((20, 1), 0.0),  # outside
    ],
)
def test_local_translation_golden(x, alpha):
    assert drag_points(np.array(x), DRAG) == pytest.approx([x[0], x[1] + 4 * alpha], abs=1e-12)


def test_local_translation_golden_digits():
    points = drag_points(np.array([(0, 0), (3, 0), (5, 5), (6, 8)]), DRAG)
    expected = [(0, 2.972652), (3, 2.893178), (5, 7.295684), (6, 8)]
    np.testing.assert_allclose(points, expected, atol=5e-7)


def test_content_moves_towards_the_target():
    image = np.zeros((61, 61), np.uint8)
    image[28:33, 28:33] = 255
    moved = displace(image, [Drag((30.0, 30.0), (36.0, 30.0), 20.0)])
    assert np.average(np.arange(61), weights=moved.sum(0)) > 32
    assert np.average(np.arange(61), weights=moved.sum(1)) == pytest.approx(30, abs=0.2)


def test_outside_the_circle_nothing_changes():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    moved = displace(image, [Drag((30.0, 20.0), (32.0, 24.0), 12.0)])
    y, x = np.mgrid[:50, :70]
    outside = (x - 30) ** 2 + (y - 20) ** 2 >= 144
    np.testing.assert_array_equal(moved[outside], image[outside])
    assert (moved != image).any()


def test_scale_maps_back():
    scale = Scale((10.0, 20.0), 2.0, (3.0, -1.0))
    # x = c + f (u - c) + shift: (11, 20) -> (10 + 2 + 3, 20 - 1) = (15, 19)
    assert scale_points(np.array([15.0, 19.0]), scale) == pytest.approx([11.0, 20.0])


def test_several_moves_are_composed_in_order():
    first, second = Drag((10.0, 10.0), (12.0, 11.0), 8.0), Scale((12.0, 9.0), 1.1, (1.0, 0.0))
    points = np.random.default_rng(1).uniform(0, 20, (30, 2))
    expected = drag_points(scale_points(points, second), first)
    np.testing.assert_allclose(displaced_points(points, [first, second]), expected)


def test_no_moves_is_identity():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(displace(image, []), image)


def test_a_drag_that_does_not_move_is_identity():
    points = np.array([(0.0, 0.0), (10.0, 0.0), (3.0, 3.0)])
    np.testing.assert_array_equal(drag_points(points, Drag((0.0, 0.0), (0.0, 0.0), 10.0)), points)


@pytest.mark.parametrize(
    "call",
    [
        lambda: drag_points(np.zeros(2), Drag((0, 0), (1, 1), 0)),
        lambda: scale_points(np.zeros(2), Scale((0, 0), 0)),
        lambda: sampling_maps((0, 0, 2, 2), [Drag((0, 0), (1, 1), 0)]),
        lambda: sampling_maps((0, 0, 2, 2), [Scale((0, 0), 0)]),
    ],
)
def test_bad_numbers_are_refused(call):
    with pytest.raises(ValueError, match="positive"):
        call()


MOVES = {
    "none": [],
    "drags": [Drag((60.0, 40.0), (66.0, 38.0), 20.0), Drag((70.0, 44.0), (64.0, 47.0), 22.5)],
    "drag and scale": [Drag((60.0, 40.0), (66.0, 38.0), 20.0), Scale((50.0, 50.0), 1.05, (2.0, -1.0))],
    "scale and drags": [
        Scale((50.0, 50.0), 0.95, (2.0, -1.0)),
        Drag((60.0, 40.0), (66.0, 38.0), 20.0),
        Drag((60.0, 40.0), (60.0, 40.0), 9.0),
    ],
    "elsewhere": [Drag((500.0, -300.0), (510.0, -300.0), 40.0), Drag((0.0, 0.0), (3.0, 1.0), 12.0)],
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("box", [(0, 0, 120, 90), (37, 21, 101, 68), (50, 30, 51, 31)])
def test_fast_maps_agree_with_the_formula(moves, box):
    x0, y0, x1, y1 = box
    grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1)
    maps = np.stack(sampling_maps(box, moves), axis=-1)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, displaced_points(grid, moves), atol=1e-4)


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (25, 15, 70, 50), (60, 0, 70, 9)])
def test_sampling_from_the_sampled_box_alone_is_the_same(box):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    maps = sampling_maps(box, [Scale((30.0, 20.0), 1.1, (3.3, -2.7)), Drag((28.0, 18.0), (31.0, 20.0), 12.0)])
    x0, y0, x1, y1 = sampled_box(maps, image.shape[:2])
    part = sample(np.ascontiguousarray(image[y0:y1, x0:x1]), maps, origin=(x0, y0)).astype(int)
    # OpenCV rounds coordinates to 1/32 pixel; only outside the image may the two reflect at other places
    inside = (maps[0] >= 0) & (maps[0] <= 69) & (maps[1] >= 0) & (maps[1] <= 49)
    assert np.abs(part - sample(image, maps))[inside].max() <= 8


def test_moving_points_forwards():
    scale = Scale(center=(10.0, 20.0), factor=1.5, shift=(2.0, -1.0))
    # (14, 20): 4 right of the center, 6 after scaling, and 2 more
    assert moved_points(np.array([14.0, 20.0]), scale).tolist() == [18.0, 19.0]
    points = np.random.default_rng(0).uniform(0, 50, (7, 2))
    np.testing.assert_allclose(scale_points(moved_points(points, scale), scale), points, atol=1e-12)
