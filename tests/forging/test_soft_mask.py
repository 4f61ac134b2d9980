from dataclasses import replace

import numpy as np
import pytest

from ddl_d2.forging.soft_mask import (
    Elastic,
    Mosaic,
    Softening,
    face_square_side,
    mosaic,
    region_box,
    soft_region_mask,
    soften,
)

PLAIN = Softening(raster=200, erode=1, blur=1, blur_sigma=5.0)


def square(low=20, high=60, size=80):
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def test_without_kernels_the_mask_stays():
    np.testing.assert_array_equal(soften(square(), PLAIN), square().astype(np.float32))
    assert not soften(np.zeros((5, 5), bool), replace(PLAIN, erode=5, blur=5)).any()


def test_erosion_takes_a_rim_of_half_the_kernel():
    # kernel 9: 4 pixels from every side of 40 x 40
    np.testing.assert_array_equal(soften(square(), replace(PLAIN, erode=9)) > 0, square(24, 56))


def test_erosion_is_the_blur_kept_at_its_maximum():
    import cv2

    blurred = cv2.GaussianBlur(square().astype(np.float64), (9, 9), 0)
    np.testing.assert_array_equal(soften(square(), replace(PLAIN, erode=9)) > 0, blurred >= blurred.max() - 1e-9)


def test_blur_reaches_half_a_kernel_and_keeps_the_edge_at_one_half():
    soft = soften(square(), replace(PLAIN, blur=11))
    assert soft.dtype == np.float32
    assert soft.max() == 1
    assert soft[40, 14] == 0  # 20 - 6
    assert soft[40, 15] > 0  # 20 - 5
    assert soft[40, 19] < 0.5 < soft[40, 20]
    assert (np.diff(soft[40, :40]) >= 0).all()


def test_small_regions_survive_any_kernel():
    mask = np.zeros((60, 60), bool)
    mask[28:33, 20:40] = True  # 5 x 20: the largest circle has radius 3
    soft = soften(mask, replace(PLAIN, erode=25, blur=25, blur_sigma=45.0))
    assert soft.max() == 1
    assert 20 < (soft > 0.5).sum() < 100


def test_elastic_deforms_the_edge_a_little_and_repeats():
    mask, elastic = square(40, 160, 200), Elastic(50.0, 7.0, seed=3)
    one, two = (soften(mask, replace(PLAIN, elastic=elastic)) > 0 for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (one != (soften(mask, replace(PLAIN, elastic=replace(elastic, seed=4))) > 0)).any()
    # uniform noise in [-1, 1] has deviation .577; blurred .577 / (2 sqrt(pi) 7) = .0233; times 50: 1.16 pixels
    # about 0.8 times that (the mean of |N|) of 480 pixels of edge differ: some 440
    assert 150 < (one != mask).sum() < 900
    assert (one != mask)[60:140, 60:140].sum() == 0
    np.testing.assert_array_equal(soften(mask, replace(PLAIN, elastic=replace(elastic, alpha=0.0))) > 0, mask)


def test_mosaic_averages_over_cells():
    soft = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    # cells of 2 x 2: the first is (0 + 1 + 4 + 5) / 4 = 2.5, the last 12.5; the peak stays at 15 / 16
    got = mosaic(soft, Mosaic(cell=2, angle=0.0, opacity=0.5)) * 2 * 16 * 12.5 / 15
    np.testing.assert_allclose(got, np.repeat(np.repeat([[2.5, 4.5], [10.5, 12.5]], 2, 0), 2, 1), rtol=1e-6)
    np.testing.assert_allclose(mosaic(soft, Mosaic(1, 0.0, 1.0)), soft)


def test_a_mosaic_does_not_wipe_out_a_thin_region():
    thin = np.zeros((40, 40), np.float32)
    thin[20] = 1  # 1 of 16 rows of its cells
    assert mosaic(thin, Mosaic(16, 3.0, 0.9)).max() == pytest.approx(0.9)


def test_a_turned_mosaic_is_another_and_needs_more_room():
    soft = soften(square(), replace(PLAIN, blur=11))
    jitter = Mosaic(cell=8, angle=5.0, opacity=0.9)
    got = mosaic(soft, jitter)
    assert got.mean() == pytest.approx(0.9 * soft.mean(), rel=0.02)
    assert got.max() == pytest.approx(0.9)
    assert (got != mosaic(soft, replace(jitter, angle=0.0))).any()
    assert replace(PLAIN, mosaic=jitter).reach == PLAIN.reach + 12


@pytest.mark.parametrize("size", [0.25, 1.0, 4.0])
def test_the_soft_mask_scales_with_the_face(size):
    polygon = np.array([(60.0, 60.0), (140.0, 60.0), (140.0, 120.0), (60.0, 120.0)]) * size
    softening = Softening(raster=200, erode=9, blur=11, blur_sigma=8.0)
    side, shape = 200.0 * size, (int(200 * size), int(220 * size))
    box = region_box([polygon], softening, side=side, shape=shape)
    hard, soft = soft_region_mask([polygon], softening, box=box, side=side)
    x0, y0, x1, y1 = box
    assert hard.shape == soft.shape == (y1 - y0, x1 - x0)
    # the sides run through pixel centers and hold those pixels
    assert hard.sum() == pytest.approx((80 * size + 1) * (60 * size + 1), rel=0.05)
    # 4 raster pixels less on each side: 72 x 52
    assert (soft > 0.5).sum() == pytest.approx(72 * 52 * size**2, rel=0.1)
    border = np.concatenate([soft[0], soft[-1], soft[:, 0], soft[:, -1]])
    assert not border.any()


def test_regions_at_and_beyond_the_edge():
    polygon = np.array([(-20.0, -10.0), (20.0, -10.0), (20.0, 30.0), (-20.0, 30.0)])
    box = region_box([polygon], PLAIN, side=100.0, shape=(60, 80))
    assert box[:2] == (0, 0)
    hard, soft = soft_region_mask([polygon], replace(PLAIN, erode=5, blur=5), box=box, side=100.0)
    assert hard[:25, :15].all()
    assert soft[:20, :10].min() == 1  # the mask goes on beyond the edge
    assert region_box([polygon - 200], PLAIN, side=100.0, shape=(60, 80)) is None


def test_the_square_of_a_face():
    assert face_square_side(np.array([(10.0, 5.0), (50.0, 65.0)])) == 90.0  # 60, and a half more
