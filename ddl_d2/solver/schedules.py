"""How the learning rate falls after its warm-up, as a share of the base rate over the share t of the training."""

from __future__ import annotations

import math

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    ParamScheduler,
)

TAIL_SHAPES = ("linear", "cosine", "sqrt")


class Tail(ParamScheduler):
    """A fall from 1 at t = 0 to `end` at t = 1: end + (1 - end) · f(t).

    f is 1 - t ("linear"), (1 + cos πt) / 2 ("cosine"), or 1 - √t ("sqrt", which Hägele et al., arXiv 2405.18392, found
    best after a stable phase).
    """

    def __init__(self, shape: str, end: float = 0.0) -> None:
        self.shape, self.end = shape, end

    def __call__(self, where: float) -> float:
        """Return the share at t = `where`, in [0, 1]."""
        left = {
            "linear": 1 - where,
            "cosine": (1 + math.cos(math.pi * where)) / 2,
            "sqrt": 1 - math.sqrt(where),
        }[self.shape]
        return self.end + (1 - self.end) * left


def stable_then_tail(start: float, shape: str = "linear", end: float = 0.0) -> ParamScheduler:
    """Make a schedule of 1 up to t = `start` (within 0..1), and then a `Tail` to `end` at t = 1."""
    if start <= 0:
        return Tail(shape, end)
    if start >= 1:
        return Tail("linear", 1.0)  # a ConstantParamScheduler refuses the end itself, 1.0
    return CompositeParamScheduler(
        [ConstantParamScheduler(1.0), Tail(shape, end)],
        lengths=[start, 1 - start],
        interval_scaling=["rescaled", "rescaled"],
    )
