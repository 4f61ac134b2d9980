"""The hook that averages weights."""

from __future__ import annotations

from detectron2.engine import HookBase

from ddl_d2.solver.ema import AveragedWeights


class AverageWeights(HookBase):
    """Takes the weights of each step into their average. Comes first: what is saved or evaluated then is up to date."""

    def __init__(self, averaged: AveragedWeights) -> None:
        self.averaged = averaged

    def after_step(self) -> None:
        """Take in the step just done."""
        self.averaged.update()
