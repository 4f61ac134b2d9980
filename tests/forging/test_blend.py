import numpy as np
import pytest

from ddl_d2.forging.blend import blend


def images(shape=(31, 45, 3)):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, 256, shape, dtype=np.uint8)


def test_mask_zero_is_the_source_and_one_the_target_bit_for_bit():
    source, target = images()
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
    source, target = images()
    with pytest.raises(ValueError, match="one size"):
        blend(source, target, np.zeros((3, 3), np.float32))


def test_agrees_with_the_formula():
    source, target = images()
    soft = np.random.default_rng(0).random((31, 45), dtype=np.float32)
    expected = target * soft[..., None].astype(np.float64) + source * (1 - soft[..., None].astype(np.float64))
    assert np.abs(blend(source, target, soft) - expected).max() <= 0.51  # half a level of rounding
