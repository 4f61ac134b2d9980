"""Masks go where the content goes."""

import numpy as np
import pytest

from ddl_d2.forging.moved_outline import moved_outline
from ddl_d2.forging.warp import Drag, Scale

SQUARE = np.array([(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)])


def test_without_displacements_the_polygons_stay():
    (same,) = moved_outline([SQUARE], [], margin=5.0)
    np.testing.assert_array_equal(same, SQUARE)


def test_a_move_of_the_whole_takes_the_polygons_along():
    # doubled about (20, 20), then 1 to the right: 10 -> 0 -> 1, 30 -> 40 -> 41
    (moved,) = moved_outline([SQUARE], [Scale((20.0, 20.0), 2.0, (1.0, 0.0))], margin=5.0)
    assert moved.tolist() == [[1.0, 0.0], [41.0, 0.0], [41.0, 40.0], [1.0, 40.0]]


# The square's half width is 10; the translation is 5 long.
@pytest.mark.parametrize(
    ("margin", "radius", "reach"),
    [
        (3.0, 20.0, 8.0),  # 5 to the target and 3 more
        (3.0, 6.0, 6.0),  # nothing moves farther out
        (9.0, 20.0, 10.0),  # not thicker than the region
    ],
)
def test_a_local_translation_adds_a_circle(margin, radius, reach):
    outline, circle = moved_outline([SQUARE], [Drag((30.0, 20.0), (33.0, 24.0), radius)], margin=margin)
    np.testing.assert_array_equal(outline, SQUARE)
    np.testing.assert_allclose(np.hypot(*(circle - (30.0, 20.0)).T), reach)


def test_the_narrowest_polygon_counts():
    strip = np.array([(50.0, 0.0), (90.0, 0.0), (90.0, 4.0), (50.0, 4.0)])
    *_, circle = moved_outline([SQUARE, strip], [Drag((50.0, 2.0), (45.0, 2.0), 20.0)], margin=9.0)
    np.testing.assert_allclose(np.hypot(*(circle - (50.0, 2.0)).T), 2.0)
