"""From a score to the likelihood ratio of forged against real, and the ratio in words.

The ratio says how many times as probable the score is of a forged image as of a real one, both from the corpus that
the calibration was made from. It is not the probability that an image is forged: that depends on how many of the
images that one looks at are. Words: as examples in the ENFSI guideline for evaluative reporting (2015).

Legend: N scores, K knots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PAV, LOGISTIC = "pav", "logistic"
METHODS = (PAV, LOGISTIC)

_STRENGTHS = ((10, "weak"), (100, "moderate"), (1e3, "moderately strong"), (1e4, "strong"), (1e6, "very strong"))


@dataclass(frozen=True)
class LikelihoodRatio:
    """A rising function from scores to log10 likelihood ratios, within limits.

    Attributes:
        method: "pav" (isotonic regression, by the pool-adjacent-violators algorithm) or "logistic".
        limits: the lowest and highest log10 ratio that the corpus supports (ELUB; Vergeer et al., 2016).
        knots: of "pav", (K, 2): scores, rising, and P(fake) at equal priors, linear between them.
        slope: of "logistic", by which the log10 odds of the score are multiplied; 0 of "pav".
        intercept: of "logistic", what is added; 0 of "pav".
    """

    method: str
    limits: tuple[float, float]
    knots: tuple[tuple[float, float], ...] = ()
    slope: float = 0.0
    intercept: float = 0.0

    def log10(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Compute the log10 likelihood ratios (N,) of N scores in [0, 1]."""
        return np.clip(self.unlimited(scores), *self.limits)

    def unlimited(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Compute the same without the limits; may be infinite at the ends."""
        values = np.atleast_1d(np.asarray(scores, np.float64))
        if self.method == LOGISTIC:
            return self.intercept + self.slope * log10_odds(values)
        at, shares = np.array(self.knots, np.float64).T
        shares = np.interp(values, at, shares)
        with np.errstate(divide="ignore"):
            return np.log10(shares) - np.log10(1 - shares)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**vars(self), "limits": list(self.limits), "knots": [list(knot) for knot in self.knots]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LikelihoodRatio:
        """Make one of what `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is none; the message says why.
        """
        low, high = map(float, values["limits"])
        knots = tuple((float(x), float(y)) for x, y in values["knots"])
        made = cls(values["method"], (low, high), knots, float(values["slope"]), float(values["intercept"]))
        if made.method not in METHODS or (made.method == PAV) != bool(knots):
            raise ValueError(f"the method is {made.method!r} with {len(knots)} knots")
        if not -math.inf < low <= 0 <= high < math.inf:
            raise ValueError(f"the limits of the ratio are {low} and {high}")
        if not math.isfinite(made.slope + made.intercept):
            raise ValueError("slope or intercept is no number")
        rising = np.diff(np.array(knots, np.float64), axis=0)
        if any(not 0 <= y <= 1 or not math.isfinite(x) for x, y in knots) or (rising < 0).any():
            raise ValueError("the knots do not rise, or are not within 0 and 1")
        return made


def log10_odds(scores: ArrayLike) -> NDArray[np.float64]:
    """Compute the log10 odds (N,) of scores; those nearer to 0 or 1 than float32 can tell count as 6e-8 off."""
    clipped = np.clip(np.atleast_1d(np.asarray(scores, np.float64)), 2.0**-24, 1 - 2.0**-24)
    return np.log10(clipped) - np.log10(1 - clipped)


def in_words(log10_lr: float, limits: tuple[float, float], *, corpus: str) -> str:
    """Say what a likelihood ratio means: both propositions, the corpus, and how strong the support is.

    Args:
        log10_lr: forged against real.
        limits: the lowest and highest that the corpus supports; a ratio at one of them is "at least" so strong.
        corpus: in words.
    """
    first, second = ("forged", "real") if log10_lr >= 0 else ("real", "forged")
    compared = (
        f"as probable if the image is {first}, like the {first} images of {corpus}, as if it is {second}, like the "
        f"{second} ones there"
    )
    factor = 10 ** abs(log10_lr)
    if f"{factor:.2g}" == "1":
        return f"the score is about {compared}: it supports neither"
    least = "at least " if log10_lr in limits else ""
    strength = next((name for limit, name in _STRENGTHS if factor < limit), "extremely strong")
    return f"the score is {least}{_rounded(factor)} times {compared}: {strength} support for {first}"


def _rounded(factor: float) -> str:
    """Two significant digits, without an exponent."""
    return f"{float(f'{factor:.2g}'):,.10g}"
