import random

import numpy as np
import torch

from ddl_d2.data.loader import seeded
from ddl_d2.utils.seed import seed_step


def _draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_a_step_draws_the_same_whatever_was_before():
    seed_step(5, 10, 1)
    first = _draws()
    torch.rand(100)
    seed_step(5, 10, 1)
    assert _draws() == first


def test_run_iteration_and_rank_each_matter():
    seen = set()
    for triple in [(5, 10, 1), (6, 10, 1), (5, 11, 1), (5, 10, 0), (10, 5, 1), (1, 5, 10)]:
        seed_step(*triple)
        seen.add(str(_draws()))
    assert len(seen) == 6


def test_a_drawn_seed_may_be_any_number():
    seed_step(-1, 0, 0)
    seed_step(2**70, 0, 0)


def test_the_model_does_not_draw_what_the_augmentations_drew():
    # The same numbers: run 5, position or iteration 10, rank 0.
    with seeded(5, 10):
        augmentation = np.random.rand(3).tolist()
    seed_step(5, 10, 0)
    assert np.random.rand(3).tolist() != augmentation
