"""Drawing numbers from ranges: a thin layer over `numpy.random.Generator` that forging code reads easily."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Range = tuple[float, float]


class Draw:
    """Draws from ranges, lists and probabilities.

    Args:
        rng: the only source of randomness; its state advances.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def within(self, limits: Range) -> float:
        """Draw uniformly from (smallest, largest)."""
        low, high = limits
        return low + (high - low) * float(self.rng.random())

    def within_log(self, limits: Range) -> float:
        """Draw from (smallest, largest), both positive, so that each ratio is as likely."""
        low, high = limits
        return math.exp(self.within((math.log(low), math.log(high))))

    def chance(self, probability: float) -> bool:
        """Draw whether something of this probability happens."""
        return float(self.rng.random()) < probability

    def one_of(self, choices: Sequence[T]) -> T:
        """Draw one of several, each as likely."""
        return choices[int(self.rng.integers(len(choices)))]

    def seed(self) -> int:
        """Draw a seed for a generator of another kind."""
        return int(self.rng.integers(2**31))

    def noise(self, shape: tuple[int, ...], sigma: float) -> np.ndarray:
        """Draw float32 Gaussian noise."""
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma)
