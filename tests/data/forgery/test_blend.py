import numpy as np
import pytest

from ddl_d2.data.forgery.blend import blend, soft_mask


def pictures(shape=(31, 45, 3)):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, 256, shape, dtype=np.uint8)


def test_mask_zero_is_the_source_and_one_the_target_bit_for_bit():
    source, target = pictures()
    soft = np.zeros((31, 45), np.float32)
    np.testing.assert_array_equal(blend(source, target, soft), source)
    np.testing.assert_array_equal(blend(source, target, soft + 1), target)
    soft[:, 20:] = 1
    mixed = blend(source, target, soft)
    np.testing.assert_array_equal(mixed[:, :20], source[:, :20])
    np.testing.assert_array_equal(mixed[:, 20:], target[:, 20:])


def test_white_keeps_the_target():
    # O = 200 * .25 + 100 * .75 = 125
    source, target = np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 200, np.uint8)
    assert blend(source, target, np.full((1, 1), 0.25, np.float32)).ravel().tolist() == [125, 125, 125]


def test_sizes_must_agree():
    source, target = pictures()
    with pytest.raises(ValueError, match="one size"):
        blend(source, target, np.zeros((3, 3), np.float32))


def test_soft_mask_keeps_the_edge_at_one_half():
    mask = np.zeros((80, 80), bool)
    mask[20:60, 25:55] = True
    soft = soft_mask(mask, 3.0)
    assert soft.dtype == np.float32
    assert soft.max() == 1
    assert soft.min() == 0
    np.testing.assert_array_equal(soft[40] > 0.5, mask[40])
    np.testing.assert_array_equal(soft[:, 40] > 0.5, mask[:, 40])
    assert ((soft > 0.5) != mask).sum() <= 4 * 9  # only the corners are rounded
    assert soft[0, 0] == 0


def test_soft_mask_without_softness_or_pixels():
    mask = np.zeros((5, 5), bool)
    assert not soft_mask(mask, 2.0).any()
    mask[2, 2] = True
    np.testing.assert_array_equal(soft_mask(mask, 0), mask.astype(np.float32))
