"""Overlap and soft-NMS of segments, by hand and as the published code has them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddl_d2.utils.segments import overlaps, soft_nms

_OPTIONS = {"alpha": 0.7234, "t1": 0.1968, "t2": 0.4123, "limit": 101}


def test_overlaps_by_hand():
    found = overlaps(np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 6.0], [1.0, 1.0]]), np.array([0.0, 2.0]))
    assert found == pytest.approx([1, 1 / 3, 0, 0])


def test_a_repetition_is_lowered_and_others_stay():
    candidates = np.array([[0.5, 8, 9], [0.9, 0, 1], [0.8, 0, 1]], dtype=float)
    found = soft_nms(candidates, **_OPTIONS)
    assert found[:, 1].tolist() == [0, 8, 0]
    assert found[2, 0] == pytest.approx(0.8 * math.exp(-1 / 0.7234))


def test_the_longer_the_surer_the_more_may_overlap():
    # 1 second: the limit is .4123; the overlap 2/3 is above it. 4 seconds: 1.06, above any overlap.
    pair = np.array([[0.9, 0, 1], [0.8, 0, 1.5]])
    assert soft_nms(pair, **_OPTIONS)[1, 0] < 0.8
    assert soft_nms(pair * [1, 4, 4], **_OPTIONS)[1, 0] == 0.8


def test_the_last_is_kept_but_as_published():
    one = np.array([[0.9, 0, 1.0]])
    assert len(soft_nms(one, **_OPTIONS)) == 1
    assert len(soft_nms(one, **_OPTIONS, keep_last=False)) == 0
    assert soft_nms(np.zeros((0, 3)), **_OPTIONS).shape == (0, 3)


def test_no_more_than_asked_for():
    many = np.column_stack([np.linspace(1, 0, 9), np.arange(9.0), np.arange(9.0) + 1])
    assert soft_nms(many, **(_OPTIONS | {"limit": 4}))[:, 1].tolist() == [0, 1, 2, 3]


def test_the_published_suppression(batfd_reference):
    golden = np.load(batfd_reference.folder / "s5_targets_and_nms.npz")
    candidates = golden["soft_nms/candidates"][:, [2, 0, 1]]
    for key, changes in {"kept": {}, "kept_alpha04_t02_t09": {"alpha": 0.4, "t1": 0.2, "t2": 0.9}}.items():
        found = soft_nms(candidates, **(_OPTIONS | changes), unit=1 / 25, keep_last=False)
        np.testing.assert_allclose(found, golden[f"soft_nms/{key}"], atol=1e-6)
