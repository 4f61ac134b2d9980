"""AP, AR and DDL-AV's score of segments, by hand and against the published metrics."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ddl_d2.evaluation.functional.temporal import (
    ddl_av_score,
    overlap_matrix,
    segment_average_precision,
    segment_average_recall,
)

_TRUTH = np.array([[1.0, 2.0]])
_NONE = np.zeros((0, 2))


def _found(*proposals):
    return np.array(proposals, dtype=np.float64).reshape(-1, 3)


def test_overlap_is_the_shared_part_of_the_hull():
    # [1, 2] and [1.5, 3]: 0.5 shared, hull 2. Apart: 0. A segment of no length overlaps nothing.
    found = overlap_matrix(_found([1, 1.5, 3], [1, 5, 6], [1, 1, 1]), _TRUTH)
    assert found.ravel().tolist() == [0.25, 0, 0]


def test_one_perfect_proposal_is_perfect_in_the_full_curve_only():
    clips = [(_found([0.9, 1, 2]), _TRUTH)]
    assert segment_average_precision(clips, 0.95) == 1
    assert segment_average_precision(clips, 0.95, curve="published") == 0


def test_average_precision_by_hand():
    # By confidence: miss, hit, hit. Precision at the hits 1/2 and 2/3, made falling 2/3; recall in steps of 1/2.
    clips = [(_found([0.9, 5, 6], [0.8, 1, 2]), _TRUTH), (_found([0.7, 1, 2]), _TRUTH)]
    assert segment_average_precision(clips, 0.5) == pytest.approx(2 / 3)


def test_a_second_proposal_of_the_same_segment_is_a_false_one():
    clips = [(_found([0.9, 1, 2], [0.8, 1, 2]), np.array([[1.0, 2.0], [5.0, 6.0]]))]
    assert segment_average_precision(clips, 0.5) == pytest.approx(1 / 2)


def test_an_overlap_of_exactly_the_limit_is_none():
    assert segment_average_precision([(_found([0.9, 1, 1.5]), _TRUTH)], 0.5) == 0


def test_average_recall_by_hand():
    # Overlap 0.8: found at .5, .55, ..., .75: 6 of the 10 limits. A clip without proposals finds nothing.
    clips = [(_found([0.9, 5, 6], [0.8, 1, 1.8]), _TRUTH), (_found(), _TRUTH), (_found([0.9, 5, 6]), _NONE)]
    assert segment_average_recall(clips, 10) == pytest.approx(0.6 / 2)
    assert segment_average_recall(clips, 1) == 0


def test_without_a_forged_segment_nothing_is_defined():
    clips = [(_found([0.9, 1, 2]), _NONE)]
    assert math.isnan(segment_average_precision(clips, 0.5))
    assert math.isnan(segment_average_recall(clips, 10))


def test_no_proposal_at_all_finds_nothing():
    assert segment_average_precision([(_found(), _TRUTH)], 0.5) == 0


def test_ddl_av_score_by_hand():
    # S = (.8 + 2 · .6 + 2 · .4 + 3 · .2 + .9 + 2 · .8 + 2 · .7 + 3 · .6) / 16 = 9.1 / 16
    found = ddl_av_score(0.9, {0.5: 0.8, 0.75: 0.6, 0.9: 0.4, 0.95: 0.2}, {30: 0.9, 20: 0.8, 10: 0.7, 5: 0.6})
    assert found == pytest.approx((0.9 + 9.1 / 16) / 2)


def test_the_published_metrics(batfd_reference):
    content = json.loads((batfd_reference.folder / "s5_ap_ar.json").read_text())
    for name, case in content["cases"].items():
        clips = [
            (
                _found(*clip["proposals"]) / [1, content["fps"], content["fps"]],
                np.array(clip["fake_periods"]).reshape(-1, 2),
            )
            for clip in case["clips"]
        ]
        want = case["result"]
        for key, published in (("ap", "av1m_ap"), ("ar", "av1m_ar")):
            values = want[key] if isinstance(want[key], list) else want.get(published)
            if values is None:
                continue
            limits = content["ap_iou" if key == "ap" else "ar_n"]
            found = [
                segment_average_precision(clips, limit, curve="published")
                if key == "ap"
                else segment_average_recall(clips, limit)
                for limit in limits
            ]
            np.testing.assert_allclose(found, values, atol=1e-6, err_msg=f"{name}: {key}")
