"""Random numbers of training steps: they follow from the run's seed, the iteration and the rank, and nothing before."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_STREAM = 1
"""Another stream than that of the augmentations, which have seeds from (run, position)."""


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch (all devices), numpy and `random`, so that what a model draws is the same after any interruption."""
    sequence = np.random.SeedSequence([seed % 2**63, iteration, rank], spawn_key=(_STREAM,))
    words = sequence.generate_state(10)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:6])
    random.seed(words[6:].tobytes())


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's generators by kind of device, for `set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> bool:
    """Have drawn again what was drawn after `random_state`.

    Returns:
        False where `device` is of another kind than it was then, so that other numbers will be drawn.
    """
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    return (device.type == "cuda") == ("cuda" in state)
