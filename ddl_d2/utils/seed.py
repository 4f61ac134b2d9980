"""Random numbers of training steps that need no memory: drawn under a seed of the run, the iteration and the rank."""

from __future__ import annotations

import random

import numpy as np
import torch

# Another stream than that of the augmentations, which have seeds from (run, position).
_STREAM = 1


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch (all devices), numpy and `random`, so that what a model draws is the same after any interruption."""
    sequence = np.random.SeedSequence([seed % 2**63, iteration, rank], spawn_key=(_STREAM,))
    words = sequence.generate_state(10)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:6])
    random.seed(words[6:].tobytes())
