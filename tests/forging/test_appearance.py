import json
from dataclasses import fields

import numpy as np
import pytest

from ddl_d2.config.forgery_options import PostOptions
from ddl_d2.forging.appearance import CHANGES, apply_steps, draw_post_steps

STEPS = [
    {"name": "shift_rgb", "offsets": [10, -5, 0]},
    {"name": "saturation", "factor": 0.5},
    {"name": "hue", "degrees": 40.0},
    {"name": "contrast", "gain": 1.2, "bias": -4},
    {"name": "gamma", "exponent": 1.3},
    {"name": "blur", "sigma": 1.0},
    {"name": "motion_blur", "length": 5, "angle": 30.0},
    {"name": "sharpen", "amount": 1.0, "sigma": 1.0},
    {"name": "edge_sharpen", "alpha": 0.3, "lightness": 0.7},
    {"name": "rescale", "factor": 0.5},
    {"name": "jpeg", "quality": 40},
    {"name": "webp", "quality": 40},
    {"name": "h264", "crf": 30},
    {"name": "noise", "sigma": 5.0, "seed": 3, "grain": 0.5},
    {"name": "poisson", "photons": 300.0, "seed": 3},
    {"name": "light", "angle": 0.0, "low": 0.5, "high": 1.0},
]

POST_PROBABILITIES = [option.name for option in fields(PostOptions) if option.name.endswith("_prob")]


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
    gray = np.full((2, 2, 3), 100, np.uint8)
    assert apply_steps(gray, [{"name": "shift_rgb", "offsets": [10, -5, 200]}])[0, 0].tolist() == [110, 95, 255]
    assert apply_steps(gray, [{"name": "saturation", "factor": 0.0}])[0, 0].tolist() == [100, 100, 100]
    # 255 * (100 / 255)² = 39.2
    assert apply_steps(gray, [{"name": "gamma", "exponent": 2.0}])[0, 0].tolist() == [39, 39, 39]
    # 100 (1 - .5 (1 - .6)) = 80: the kernel of edge_sharpen sums to 1 - alpha (1 - lightness)
    dark = apply_steps(np.full((5, 5, 3), 100, np.uint8), [{"name": "edge_sharpen", "alpha": 0.5, "lightness": 0.6}])
    assert dark[2, 2].tolist() == [80, 80, 80]
    # a third of a turn about the gray axis makes red green
    assert apply_steps(np.uint8([[[200, 0, 0]]]), [{"name": "hue", "degrees": 120.0}]).ravel().tolist() == [0, 200, 0]
    # mean 100: (100 - 100) * 2 + 100 + 7
    assert apply_steps(gray, [{"name": "contrast", "gain": 2.0, "bias": 7.0}])[0, 0].tolist() == [107, 107, 107]
    lit = apply_steps(np.full((1, 3, 3), 100, np.uint8), [{"name": "light", "angle": 0.0, "low": 0.5, "high": 1.0}])
    assert lit[0, :, 0].tolist() == [50, 75, 100]


def test_unknown_change():
    with pytest.raises(ValueError, match="unknown change 'melt'"):
        apply_steps(np.zeros((2, 2, 3), np.uint8), [{"name": "melt"}])


def test_post_steps_are_the_same_for_a_pair_and_within_their_ranges():
    always = PostOptions(**dict.fromkeys(POST_PROBABILITIES, 1.0))
    for seed in range(20):
        steps = draw_post_steps(np.random.default_rng(seed), always)
        assert steps == draw_post_steps(np.random.default_rng(seed), always)
        named = {step["name"]: step for step in steps}
        assert list(named) == ["shift_rgb", "hue", "saturation", "contrast", "sharpen", "rescale", "jpeg"]
        assert 40 <= named["jpeg"]["quality"] <= 100
        assert 0.7 <= named["contrast"]["gain"] <= 1.3
        assert 1 / 2.5 <= named["rescale"]["factor"] <= 1 / 1.2 + 1e-4
    assert json.loads(json.dumps(steps)) == steps
    never = PostOptions(**dict.fromkeys(POST_PROBABILITIES, 0.0))
    assert draw_post_steps(np.random.default_rng(0), never) == []
