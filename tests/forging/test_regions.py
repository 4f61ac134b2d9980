import numpy as np
import pytest

from ddl_d2.faces.face import MIRRORED
from ddl_d2.forging.regions import REGIONS, raised_brows, region_polygons
from tests.forging.region_masks import region_mask


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


@pytest.mark.parametrize("region", REGIONS)
def test_area_factor_scales_area(region, synthetic_face):
    points = synthetic_face().landmarks
    for plain, scaled in zip(
        region_polygons(points, region), region_polygons(points, region, area_factor=1.3), strict=True
    ):
        assert area(scaled) == pytest.approx(1.3 * area(plain), rel=1e-4)


@pytest.mark.parametrize("region", REGIONS)
def test_masks_on_a_photograph(region, astronaut, astronaut_face):
    mask = region_mask(astronaut_face.landmarks, region, astronaut.shape[:2])
    rows, columns = np.nonzero(mask)
    polygons = region_polygons(astronaut_face.landmarks, region)
    assert mask.sum() == pytest.approx(sum(area(p) for p in polygons), rel=0.35, abs=30)
    # the face of scikit-image's astronaut lies within columns 170-280 and rows 60-190
    assert columns.min() > 165
    assert columns.max() < 285
    assert rows.min() > 55
    assert rows.max() < 195


def test_regions_of_a_photograph_lie_where_they_should(astronaut, astronaut_face):
    center = {
        region: np.argwhere(region_mask(astronaut_face.landmarks, region, astronaut.shape[:2])).mean(0)
        for region in REGIONS
    }
    assert center["both_eyes"][0] < center["nose"][0] < center["mouth"][0]
    assert center["left_eye"][1] < center["nose"][1] < center["right_eye"][1]


def test_whole_face_holds_every_part(astronaut, astronaut_face):
    face = region_mask(astronaut_face.landmarks, "face", astronaut.shape[:2])
    for region in REGIONS:
        assert not (region_mask(astronaut_face.landmarks, region, astronaut.shape[:2]) & ~face).any()


def test_what_is_outside_is_cut_off(synthetic_face):
    points = synthetic_face(center=(0.0, 0.0)).landmarks
    assert region_mask(points, "face", (40, 40)).any()
    assert not region_mask(points - 500, "face", (40, 40)).any()


def test_bad_arguments(synthetic_face):
    points = synthetic_face().landmarks
    with pytest.raises(ValueError, match="unknown region 'ear'"):
        region_mask(points, "ear", (9, 9))
    with pytest.raises(ValueError, match="positive"):
        region_mask(points, "nose", (9, 9), area_factor=0)


def test_mirrored_landmarks(synthetic_face):
    assert sorted(MIRRORED) == list(range(68))
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(68))
    face = synthetic_face(center=(100.0, 100.0))
    flipped = face.moved(np.array([[-1.0, 0.0, 200.0], [0.0, 1.0, 0.0]]), mirror=True)  # about x = 100
    # the synthetic face is symmetric about x = 100, so that jaw and nose map to themselves
    np.testing.assert_allclose(flipped.landmarks[:17], face.landmarks[:17], atol=1e-9)
    np.testing.assert_allclose(flipped.landmarks[27:36], face.landmarks[27:36], atol=1e-9)
    assert flipped.width == pytest.approx(face.width)
    left, right = (region_mask(flipped.landmarks, r, (200, 200)) for r in ("left_eye", "right_eye"))
    assert np.argwhere(left)[:, 1].max() < np.argwhere(right)[:, 1].min()


def test_mirroring_a_photograph_agrees_with_finding_again(finder, astronaut, astronaut_face):
    width = astronaut.shape[1]
    (again,) = finder(np.ascontiguousarray(astronaut[:, ::-1]))
    moved = astronaut_face.moved(np.array([[-1.0, 0.0, width - 1], [0.0, 1.0, 0.0]]), mirror=True)
    error = np.linalg.norm(moved.landmarks - again.landmarks, axis=1) / moved.width
    assert error.mean() < 0.04
    assert error.max() < 0.12


def test_raised_brows(synthetic_face):
    points = synthetic_face(center=(100.0, 100.0), width=100.0).landmarks
    raised = raised_brows(points, 0.2)
    # bridge of the nose at y = 95, chin at y = 165: a fifth of 70 px
    np.testing.assert_allclose(raised, points[17:27] - (0.0, 14.0), atol=1e-9)
    (low,), (high,) = region_polygons(points, "face"), region_polygons(points, "face", forehead=0.2)
    assert low[:, 1].min() - high[:, 1].min() == pytest.approx(14, abs=1e-4)
    assert area(high) > area(low)
