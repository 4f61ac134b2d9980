"""An average of the weights over the last steps (exponential moving average), as every release recipe evaluates it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a model's parameters and buffers.

    A step keeps `decay` of the average, but no more than (1 + n) / (10 + n) in the n-th, so that the random first
    weights are soon forgotten. What is not of floating point (counters of batch norms) is taken as it is.

    Args:
        model: whose weights are averaged; it starts as a copy of them.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._live = _state(model)
        self._average = {name: value.detach().clone() for name, value in self._live.items()}
        self._floats = [name for name, value in self._live.items() if value.is_floating_point()]

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew at the model's present weights, as when some were loaded."""
        self.steps = 0
        for name, value in self._live.items():
            self._average[name].copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights in."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(
            [self._average[name] for name in self._floats], [self._live[name] for name in self._floats], 1 - kept
        )
        for name in self._live.keys() - set(self._floats):
            self._average[name].copy_(self._live[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again behind."""
        with torch.no_grad():
            own = {name: value.detach().clone() for name, value in self._live.items()}
            self._put(self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                self._put(own)

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """The average, and how many steps are in it."""
        return {"weights": self._average, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; of a checkpoint of the same model."""
        self.steps = int(state["steps"])
        for name, value in self._average.items():
            value.copy_(state["weights"][name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors themselves (not copies), those that a checkpoint holds."""
    return dict(model.state_dict(keep_vars=True))
