"""Averages of scores and maps: by hand, to the last bit where that is promised, and at every level a map can have."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddl_d2.errors import FusionError
from ddl_d2.fusion import average_maps, average_scores, check_weights
from ddl_d2.fusion.ensemble import exceeds_on_average, resize_map
from ddl_d2.predictions.maps import binarize_map, quantize_map


@pytest.fixture
def every_pair():
    """Two maps that hold all 65536 pairs of levels."""
    levels = np.arange(256, dtype=np.uint8)
    return [np.repeat(levels[:, None], 256, 1), np.repeat(levels[None], 256, 0)]


def test_scores_by_hand():
    """1 : 2.5, the published weights: (.2 + 2.5 x .9) / 3.5 = 2.45 / 3.5 = .7; (.6 + 2.5 x .25) / 3.5 = .35."""
    scores = np.array([[0.2, 0.6], [0.9, 0.25]])
    assert average_scores(scores, (1, 2.5)) == pytest.approx([0.7, 0.35], abs=1e-15)
    assert average_scores(scores, (2, 5)) == pytest.approx([0.7, 0.35], abs=1e-15)


def test_probabilities_are_averaged_not_logits():
    """.9 and .99 make .945; the mean of their logits, ln 9 and ln 99, would make 1 / (1 + 1 / sqrt(891)) = .9676."""
    mean = average_scores(np.array([[0.9], [0.99]]), (1, 1))[0]
    assert mean == pytest.approx(0.945, abs=1e-15)
    assert 1 / (1 + 1 / math.sqrt(891)) == pytest.approx(0.9676, abs=1e-4)
    assert average_maps([np.array([[230]], np.uint8), np.array([[252]], np.uint8)], (1, 1)) == 241


def test_one_system_alone_keeps_its_scores():
    scores = np.random.default_rng(0).random((3, 1000))
    assert (average_scores(scores, (0, 2.7, 0)) == scores[1]).all()


def test_ties_stay_ties_and_ones_stay_ones():
    """All images alike, in a number that no vector unit divides."""
    scores = np.repeat(np.random.default_rng(1).random((3, 1)), 1003, axis=1)
    assert len(np.unique(average_scores(scores, (0.1, 0.7, 1.3)))) == 1
    assert (average_scores(np.ones((3, 7)), (0.1, 0.7, 1.3)) == 1).all()


def test_maps_by_hand():
    """Halves go down: a mean of exactly one half, (127 + 128) / 2 = 127.5, is authentic."""
    first, second = np.array([[127, 0, 10]], np.uint8), np.array([[128, 255, 11]], np.uint8)
    assert average_maps([first, second], (1, 1)).tolist() == [[127, 127, 10]]
    assert average_maps([first, second], (1, 3)).tolist() == [[128, 191, 11]]  # 127.75, 191.25, 10.75
    assert average_maps([first, second], (1, 0)).tolist() == first.tolist()
    assert average_maps([first, second], (1, 0)) is not first
    assert average_maps([first, second, first], (2, 1, 1)).tolist() == [[127, 64, 10]]  # 127.25, 63.75, 10.25


def test_maps_round_as_stored_maps_do(every_pair):
    mean = (every_pair[0].astype(float) + every_pair[1]) / 2
    assert (average_maps(every_pair, (1, 1)) == np.ceil(mean - 0.5)).all()
    assert (average_maps(every_pair[:1] * 2, (1, 1)) == every_pair[0]).all()
    assert quantize_map(np.array([127.5 / 255])) == 127


@pytest.mark.parametrize(("decimal", "whole"), [((0.3, 0.7), (3, 7)), ((0.1, 0.2), (1, 2)), ((1.4, 0.7), (2, 1))])
def test_decimal_weights_round_as_whole_ones(every_pair, decimal, whole):
    assert (average_maps(every_pair, decimal) == average_maps(every_pair, whole)).all()


@pytest.mark.parametrize("threshold", [0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("parts", [(1, 1), (2, 5), (0, 3), (7, 0), (128, 129), (130, 129), (999, 1)])
def test_the_fast_mask_is_the_mask_of_the_average(every_pair, parts, threshold):
    expected = binarize_map(average_maps(every_pair, parts), threshold)
    assert (exceeds_on_average(every_pair, parts, threshold) == expected).all()


def test_the_fast_mask_of_three():
    maps = list(np.random.default_rng(2).integers(0, 256, (3, 61, 67), dtype=np.uint8))
    for parts in ((1, 1, 1), (5, 0, 8), (3, 11, 6)):
        assert (exceeds_on_average(maps, parts) == binarize_map(average_maps(maps, parts))).all()


def test_resizing_by_hand():
    """Two pixels to four: centers at 1/4 and 3/4, so those at 1/8, 3/8, 5/8, 7/8 get 0, 1/4, 3/4 and 1 of 255."""
    assert resize_map(np.array([[0, 255]], np.uint8), 1, 4).tolist() == [[0, 64, 191, 255]]  # 63.75, 191.25
    assert resize_map(np.array([[127, 128]], np.uint8), 1, 1).tolist() == [[127]]  # 127.5
    full = np.full((3, 5), 255, np.uint8)
    assert (resize_map(full, 7, 4) == 255).all()
    assert resize_map(full, 3, 5) is full


def test_impossible_weights():
    for weights, problem in (
        ((1,), "1 weights for 2 systems"),
        ((1, 2, 3), "3 weights for 2 systems"),
        ((), "0 weights for 2 systems"),
        ((1, -0.5), "not negative, not 1 -0.5"),
        ((1, math.nan), "finite"),
        ((1, math.inf), "finite"),
        ((0, 0), "all weights are 0"),
    ):
        with pytest.raises(FusionError, match=problem):
            check_weights(weights, 2)
        with pytest.raises(FusionError, match=problem):
            average_scores(np.zeros((2, 3)), weights)
        with pytest.raises(FusionError, match=problem):
            average_maps([np.zeros((2, 2), np.uint8)] * 2, weights)


def test_maps_that_do_not_fit():
    level = np.zeros((2, 3), np.uint8)
    with pytest.raises(FusionError, match=r"\(2, 3\) and \(3, 2\) pixels"):
        average_maps([level, level.T], (1, 1))
    with pytest.raises(FusionError, match="uint8 H x W, not float64"):
        average_maps([level, level / 255], (1, 1))
