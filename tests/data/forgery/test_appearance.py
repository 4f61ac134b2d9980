import numpy as np
import pytest

from ddl_d2.data.forgery.appearance import CHANGES, apply_steps

STEPS = [
    {"name": "shift_rgb", "offsets": [10, -5, 0]},
    {"name": "saturation", "factor": 0.5},
    {"name": "contrast", "gain": 1.2, "bias": -4},
    {"name": "gamma", "exponent": 1.3},
    {"name": "blur", "sigma": 1.0},
    {"name": "sharpen", "amount": 1.0, "sigma": 1.0},
    {"name": "rescale", "factor": 0.5},
    {"name": "jpeg", "quality": 40},
    {"name": "noise", "sigma": 5.0, "seed": 3, "grain": 0.5},
    {"name": "light", "angle": 0.0, "low": 0.5, "high": 1.0},
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["name"])
@pytest.mark.parametrize("shape", [(40, 30, 3), (1, 1, 3), (3, 64, 3)])
def test_each_change_keeps_shape_and_type_and_repeats(step, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    one, two = apply_steps(image, [step]), apply_steps(image, [step])
    assert one.shape == shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(image, before)


def test_every_change_is_covered():
    assert {step["name"] for step in STEPS} == set(CHANGES)


def test_values_by_hand():
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert apply_steps(grey, [{"name": "shift_rgb", "offsets": [10, -5, 200]}])[0, 0].tolist() == [110, 95, 255]
    assert apply_steps(grey, [{"name": "saturation", "factor": 0.0}])[0, 0].tolist() == [100, 100, 100]
    # 255 * (100 / 255)² = 39.2
    assert apply_steps(grey, [{"name": "gamma", "exponent": 2.0}])[0, 0].tolist() == [39, 39, 39]
    lit = apply_steps(np.full((1, 3, 3), 100, np.uint8), [{"name": "light", "angle": 0.0, "low": 0.5, "high": 1.0}])
    assert lit[0, :, 0].tolist() == [50, 75, 100]


def test_unknown_change():
    with pytest.raises(ValueError, match="unknown change 'melt'"):
        apply_steps(np.zeros((2, 2, 3), np.uint8), [{"name": "melt"}])
