"""What the tests of reading and writing pictures share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
