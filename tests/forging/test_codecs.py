"""Codecs: what is left is about the image, less of it at lower quality."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.forging.appearance import apply_steps
from ddl_d2.forging.codecs import jpeg, webp

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize("codec", [jpeg, webp])
def test_lower_quality_loses_more(codec):
    errors = [np.abs(codec(IMAGE, quality=q).astype(float) - IMAGE).mean() for q in (95, 60, 10)]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 20
    assert codec(IMAGE[:31, :17], quality=50).shape == (31, 17, 3)


def test_what_no_file_can_hold_is_compressed_in_parts():
    """16,384 pixels are one more than WebP holds: two halves of 8,192, each as it would be alone."""
    row = np.random.default_rng(1).integers(0, 256, (8, 2048, 3), np.uint8).repeat(8, 1)
    halves = [webp(np.ascontiguousarray(half), quality=50) for half in np.split(row, 2, 1)]
    np.testing.assert_array_equal(webp(row, quality=50), np.concatenate(halves, 1))


def test_shot_noise_is_that_of_counts():
    """Of a mean count n the variance is n: at gray level 51 of 1,000 photons n = 200, so sigma = 255/1000 · √200."""
    gray = np.full((200, 200, 3), 51, np.uint8)
    noisy = apply_steps(gray, [{"name": "poisson", "photons": 1000.0, "seed": 3}])
    assert noisy.mean() == pytest.approx(51, abs=0.1)
    assert noisy.std() == pytest.approx(0.255 * 200**0.5, rel=0.02)
    assert not apply_steps(np.zeros_like(gray), [{"name": "poisson", "photons": 50.0, "seed": 3}]).any()
