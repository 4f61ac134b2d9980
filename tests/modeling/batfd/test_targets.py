"""What a clip teaches, by hand and as the published code has it, and that decoding undoes it."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.modeling.batfd.decoding import DecodeOptions, candidates_of_map
from ddl_d2.modeling.batfd.targets import boundary_curves, frame_labels, parse_durations, stretched, target_map
from ddl_d2.utils.segments import overlaps

_DURATIONS = list(range(1, 13))


@pytest.mark.parametrize(
    ("text", "durations"),
    [("1:3", [1, 2, 3]), ("1:2,5:9:2", [1, 2, 5, 7, 9]), ("4", [4]), ("1:40,44:100:4,116:512:16", None)],
)
def test_durations_are_read(text, durations):
    found = parse_durations(text)
    assert found == durations if durations else len(found) == 40 + 15 + 25


@pytest.mark.parametrize("text", ["", "0:3", "3:1", "1:5,5:9", "a", "1:2:3:4"])
def test_durations_that_are_none(text):
    with pytest.raises(ValueError, match=""):
        parse_durations(text)


def test_a_target_map_by_hand():
    # Forged: frames 2 to 4. [2, 4] fits; [1, 4] shares 2 of 3; [0, 2] none; [4, 6] ends with the clip of 6 frames.
    found = target_map(np.array([[2.0, 4.0]]), 6, 8, [1, 2, 3])
    assert found[1, 2] == 1
    assert found[2, 1] == pytest.approx(2 / 3)
    assert found[1, 0] == found[1, 4] == 0
    assert found.shape == (3, 8)


def test_frame_labels_by_hand():
    assert frame_labels(np.array([[1.0, 3.0], [4.5, 9.0]]), 6).tolist() == [0, 1, 1, 0, 1, 1]
    # 0.28 seconds times 25 is 7.000000000000001, 0.29 · 100 is 28.999999999999996: both are whole frames.
    assert frame_labels(np.array([[0.29 * 100, 31.0]]), 40).nonzero()[0].tolist() == [29, 30]


def test_a_stretched_curve_by_hand():
    assert stretched(np.array([0.0, 1.0], dtype=np.float32), 4).tolist() == [0, 0.25, 0.75, 1]


def test_boundary_curves_by_hand():
    # A boundary's region is a tenth of the segment, at least a frame, around it: of frame 3, [2.5, 3.5].
    start, end = boundary_curves(np.array([[3.0, 6.0]]), 10, 12)
    assert start.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert end.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_the_published_targets(batfd_reference):
    golden = np.load(batfd_reference.folder / "s5_targets_and_nms.npz")
    names = [key.split("/")[1] for key in golden.files if key.startswith("target/") and key.endswith("/map")]
    assert len(names) == 8
    for name in names:
        frames, segments = int(golden[f"target/{name}/frames"]), golden[f"target/{name}/periods"] * 25
        found = target_map(segments, min(frames, 64), 64, _DURATIONS)
        if frames <= 64:
            np.testing.assert_allclose(found, golden[f"target/{name}/map"], atol=1e-6, err_msg=name)
        labels = golden[f"target/{name}/frame_labels"][:frames]
        assert frame_labels(segments, frames).tolist() == labels.tolist(), name


@pytest.mark.parametrize("length", _DURATIONS)
def test_a_perfect_map_is_decoded_to_what_it_was_made_of(length):
    for first in range(0, 40 - length + 1, 7):
        segment = np.array([[first, first + length]], dtype=float)
        perfect = target_map(segment, 40, 48, _DURATIONS)
        best = DecodeOptions().suppressed(candidates_of_map(perfect, _DURATIONS, 40), 1 / 25)[0]
        assert best.tolist() == [1, first, first + length]
        published = candidates_of_map(perfect, _DURATIONS, 40, decode="published")
        if length > 1:  # one frame short
            taken = DecodeOptions(decode="published").suppressed(published, 1 / 25)[0]
            assert overlaps(taken[1:], segment[0]) == pytest.approx((length - 1) / length)
