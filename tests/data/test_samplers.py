from collections import Counter
from itertools import islice

import numpy as np
import pytest

from ddl_d2.data.samplers import ClassBalancedSampler, TrainingSampler

LABELS = np.array([1] * 17 + [0] * 5)


def make(kind, seed=7):
    return TrainingSampler(22, seed=seed) if kind == "uniform" else ClassBalancedSampler(LABELS, seed=seed)


def test_uniform_passes():
    stream = list(islice(make("uniform"), 66))
    passes = [stream[:22], stream[22:44], stream[44:]]
    assert all(sorted(one) == list(range(22)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_balanced_stream():
    stream = list(islice(make("balanced"), 340))
    for start in range(0, 340, 2):
        assert sorted(LABELS[stream[start : start + 2]]) == [0, 1]
    assert 0.3 < np.mean(LABELS[stream[::2]]) < 0.7  # a rank that takes every second sample sees both classes
    counts = Counter(stream)
    assert {counts[i] for i in range(17)} == {10}
    assert {counts[i] for i in range(17, 22)} == {34}


@pytest.mark.parametrize("kind", ["uniform", "balanced"])
@pytest.mark.parametrize("consumed", [0, 1, 21, 22, 23, 1000])
def test_exact_resume(kind, consumed):
    whole = list(islice(make(kind), consumed + 50))
    first = make(kind)
    first.position = consumed
    second = make(kind, seed=99)
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 50)) == whole[consumed:]
    assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize("kind", ["uniform", "balanced"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_stream(kind, world_size):
    whole = list(islice(make(kind), 60))
    parts = []
    for rank in range(world_size):
        sampler = make(kind)
        sampler.rank, sampler.world_size = rank, world_size
        parts.append(list(islice(sampler, 60 // world_size)))
    assert [part[i] for i in range(60 // world_size) for part in parts] == whole


@pytest.mark.parametrize("kind", ["uniform", "balanced"])
def test_seeds_differ(kind):
    assert list(islice(make(kind, 1), 30)) != list(islice(make(kind, 2), 30))


def test_another_dataset_cannot_be_resumed():
    with pytest.raises(ValueError, match="size was 23, is now 22"):
        make("uniform").load_state_dict(TrainingSampler(23, seed=1).state_dict())
    with pytest.raises(ValueError, match="kind was TrainingSampler"):
        make("balanced").load_state_dict(make("uniform").state_dict())


def test_missing_class_and_empty_set():
    with pytest.raises(ValueError, match="0 real and 4 fake"):
        ClassBalancedSampler([1, 1, 1, 1], seed=0)
    with pytest.raises(ValueError, match="at least one"):
        TrainingSampler(0, seed=0)


def test_seed_none_draws_one():
    assert TrainingSampler(5).seed >= 0
