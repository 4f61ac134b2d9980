from collections import Counter
from itertools import islice

import numpy as np
import pytest

from ddl_d2.data.samplers import ClassBalancedSampler, InterleavedSampler, TrainingSampler

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


# Two sources: 12 images of weight 1 and 6 of weight 2.5, mixed; real and fake in both.
WEIGHTS = np.array([1.0, 2.5, 1.0] * 6)
SOURCE_LABELS = np.array([0, 0, 1, 1, 1, 0] * 3)


def weighted(kind, seed=7, weights=WEIGHTS):
    if kind == "uniform":
        return TrainingSampler(len(weights), weights=weights, seed=seed)
    return ClassBalancedSampler(SOURCE_LABELS, weights=weights, seed=seed)


@pytest.mark.parametrize("kind", ["uniform", "balanced"])
def test_equal_weights_change_no_draw(kind):
    plain = TrainingSampler(18, seed=7) if kind == "uniform" else ClassBalancedSampler(SOURCE_LABELS, seed=7)
    equal = weighted(kind, weights=np.full(18, 2.5))
    assert list(islice(equal, 200)) == list(islice(plain, 200))
    assert equal.state_dict() == plain.state_dict()
    equal.load_state_dict(plain.state_dict())


def test_shares_of_sources_in_every_pass():
    """Relative to the largest weight 12 images of 1 / 2.5 are 4.8, so 5, and 6 of 1 are 6: passes of 11 places."""
    stream = list(islice(weighted("uniform"), 11 * 60))
    for start in range(0, len(stream), 11):
        assert sorted(WEIGHTS[stream[start : start + 11]]) == [1.0] * 5 + [2.5] * 6
    counts = Counter(stream)
    # 60 passes: 300 draws of 12 images, 25 each; 360 of 6, 60 each. 60 / 25 = 2.4, for 2.5.
    assert all(counts[i] == (25 if WEIGHTS[i] == 1.0 else 60) for i in range(18))
    assert len({tuple(WEIGHTS[stream[start : start + 11]]) for start in range(0, len(stream), 11)}) > 30


def test_distribution_of_many_draws():
    """3000 and 1000 images, weights 1 and 4: 3000 to 4000, three sevenths of the draws, in any long stretch."""
    weights = np.repeat([1.0, 4.0], [3000, 1000])
    sampler = TrainingSampler(4000, weights=weights, seed=3)
    drawn = np.array([sampler.index_at(position) for position in range(70_000)])
    assert (drawn < 3000).mean() == pytest.approx(3 / 7, abs=1e-3)
    for stretch in drawn.reshape(20, -1):  # two passes of 1750 places
        assert (stretch < 3000).mean() == pytest.approx(3 / 7, abs=1e-3)
    counts = np.bincount(drawn, minlength=4000)
    assert set(counts[:3000]) == {10}
    assert set(counts[3000:]) == {40}


def test_weights_act_within_a_class():
    """Of each class 6 images have weight 1 (2.4 of the largest, so 2 in a pass) and 3 have weight 2.5."""
    stream = list(islice(weighted("balanced"), 2 * 5 * 24))
    for start in range(0, len(stream), 2):
        assert sorted(SOURCE_LABELS[stream[start : start + 2]]) == [0, 1]
    for label in (0, 1):
        drawn = [WEIGHTS[i] for i in stream if SOURCE_LABELS[i] == label]
        assert drawn.count(2.5) / drawn.count(1.0) == pytest.approx(3 / 2)


@pytest.mark.parametrize("kind", ["uniform", "balanced"])
@pytest.mark.parametrize("consumed", [0, 1, 10, 11, 12, 997])
def test_exact_resume_with_weights(kind, consumed):
    whole = list(islice(weighted(kind), consumed + 50))
    first = weighted(kind)
    first.position = consumed
    second = weighted(kind, seed=99)
    next(iter(second))  # whatever was drawn before leaves no trace
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 50)) == whole[consumed:]
    assert second.state_dict() == first.state_dict()
    for rank in (0, 1):
        part = weighted(kind)
        part.rank, part.world_size, part.position = rank, 2, consumed
        assert list(islice(part, 25)) == whole[consumed:][rank::2]


def test_draws_in_any_order_are_the_same():
    sampler, other = weighted("uniform"), weighted("uniform")
    positions = np.random.default_rng(0).permutation(200)
    found = {int(p): sampler.index_at(int(p)) for p in positions}
    assert [found[p] for p in range(200)] == [other.index_at(p) for p in range(200)]


def test_other_weights_cannot_be_resumed():
    state = weighted("uniform").state_dict()
    assert state["weights"][:3] == [[1, 1.0], [1, 2.5], [2, 1.0]]
    for weights in (np.full(18, 1.0), np.roll(WEIGHTS, 1)):
        with pytest.raises(ValueError, match=r"weights of their sources.*DATASETS\.SOURCES"):
            weighted("uniform", weights=weights).load_state_dict(state)


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [1.0]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="positive numbers, one for each of 2"):
        TrainingSampler(2, weights=weights, seed=0)


def test_a_tiny_share_is_one_image_of_each_pass():
    stream = list(islice(TrainingSampler(9, weights=[1e-9] + [1.0] * 8, seed=0), 90))
    assert Counter(stream) == Counter(dict.fromkeys(range(9), 10))


@pytest.mark.parametrize(("size", "world"), [(1, 1), (10, 3), (1000, 8), (2, 4)])
def test_interleaved_shares_cover_everything_once_and_are_alike(size, world, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        sampler = InterleavedSampler(size)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
        assert shares[-1] == sorted(shares[-1])
    assert sorted(index for share in shares for index in share) == list(range(size))
    if size == 1000:
        # Of the first half (the real images, say) each rank has an eighth, to a block of 15.
        assert all(abs(sum(index < 500 for index in share) - 62.5) <= 15 for share in shares)
        assert shares[1][:16] == [*range(15, 30), 135]
