"""Forged spans of clips: the spans are forged, and nothing but them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ddl_d2.config.span_options import VISUAL_KINDS, SpanOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.forging.picture_spans import NEEDS_FACE, forge_picture
from ddl_d2.forging.self_blend import NoSuitableFaceError
from ddl_d2.forging.spans import draw_spans, forge_clip, speaking, with_decoys
from ddl_d2.io.clip import Clip
from tests.conftest import synthetic_face
from tests.forging.test_voice import talk

SIZE = 128
NO_DECOYS = SpanOptions(decoy_prob=0.0)


@pytest.fixture(scope="module")
def clip():
    """50 frames of a textured image that moves, and 2 s of talk."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (SIZE // 8, SIZE // 4, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return Clip(np.stack([wide[:, k : k + SIZE] for k in range(50)]), talk(2.0))


@pytest.fixture(scope="module")
def faces():
    return [synthetic_face(center=(64.0 + k / 10, 64.0), width=70.0) for k in range(50)]


def changed_frames(made, clip):
    return (made.frames != clip.frames).any(axis=(1, 2, 3))


def changed_sound(made, clip):
    """Per frame: whether any of its 640 samples differs."""
    return (made.audio != clip.audio).reshape(-1, 640).any(axis=1)


def mask_of(spans, total=50):
    mask = np.zeros(total, bool)
    for start, end in spans:
        mask[start:end] = True
    return mask


@pytest.mark.parametrize("modality", ["visual", "audio", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_labeled_is_changed_and_nothing_else(clip, faces, modality, seed):
    made = forge_clip(clip, np.random.default_rng(seed), NO_DECOYS, faces=faces, modality=modality)
    assert (len(made.video_spans) > 0) == (modality != "audio")
    assert (len(made.audio_spans) > 0) == (modality != "visual")
    assert not (changed_frames(made.clip, clip) & ~mask_of(made.video_spans)).any()
    np.testing.assert_array_equal(changed_sound(made.clip, clip), mask_of(made.audio_spans))
    for start, end in made.video_spans:
        assert changed_frames(made.clip, clip)[start:end].mean() > 0.5
    kinds = [part["kind"] for part in made.record["visual"]]
    assert len(kinds) == len(made.video_spans)


@pytest.mark.parametrize("kind", VISUAL_KINDS)
def test_each_kind_of_picture(clip, faces, kind):
    frames = clip.frames.copy()
    record = forge_picture(
        frames, 20, 30, kind=kind, faces=faces, fps=25.0, rng=np.random.default_rng(0), options=SpanOptions()
    )
    changed = (frames != clip.frames).any(axis=(1, 2, 3))
    assert not changed[:20].any()
    assert not changed[30:].any()
    assert changed[20:30].sum() >= 8
    assert record["kind"] == kind
    if kind in NEEDS_FACE:  # the corners are no face
        np.testing.assert_array_equal(frames[:, :8, :8], clip.frames[:, :8, :8])


def test_orders_of_frames(clip):
    for kind, wanted in {"reversed": range(29, 19, -1), "repeated": range(10, 20)}.items():
        frames = clip.frames.copy()
        forge_picture(frames, 20, 30, kind=kind, faces=(), fps=25, rng=np.random.default_rng(0), options=SpanOptions())
        np.testing.assert_array_equal(frames[20:30], clip.frames[list(wanted)])
    # At the start there is nothing to repeat: what follows is shown early.
    frames = clip.frames.copy()
    forge_picture(frames, 2, 12, kind="repeated", faces=(), fps=25, rng=np.random.default_rng(0), options=SpanOptions())
    np.testing.assert_array_equal(frames[2:12], clip.frames[12:22])


def test_a_self_blended_span_is_one_forgery_and_not_one_a_frame(faces):
    """Of a clip that stands still every frame of the span is the same."""
    still = np.random.default_rng(0).integers(0, 256, (SIZE // 8, SIZE // 8, 3)).astype(np.uint8)
    frames = np.stack([still.repeat(8, 0).repeat(8, 1)] * 20)
    forge_picture(
        frames, 5, 15, kind="self_blend", faces=[faces[0]] * 20, fps=25, rng=np.random.default_rng(0),
        options=SpanOptions(),
    )  # fmt: skip
    assert (frames[5:15] == frames[5]).all()
    assert (frames[5] != frames[4]).any()


def test_another_mouth_is_that_of_another_time(faces):
    """A clip that turns brighter at frame 25: the mouth is put in at the color of where it goes."""
    frames = np.full((50, SIZE, SIZE, 3), 90, np.uint8)
    frames[25:] = 160
    before = frames.copy()
    options = SpanOptions(mouth_offset=(1.0, 1.0))
    forge_picture(
        frames, 5, 15, kind="other_mouth", faces=faces, fps=25, rng=np.random.default_rng(0), options=options
    )  # fmt: skip
    assert np.abs(frames.astype(int) - before).max() <= 1


def test_no_face_leaves_the_kinds_that_need_none(clip):
    for seed in range(6):
        made = forge_clip(clip, np.random.default_rng(seed), NO_DECOYS, modality="visual")
        assert not {part["kind"] for part in made.record["visual"]} & NEEDS_FACE
    with pytest.raises(ForgeryError, match="no face"):
        forge_clip(clip, np.random.default_rng(0), SpanOptions(visual_kinds=("self_blend",)), modality="visual")
    far = [synthetic_face(center=(-300.0, 64.0), width=70.0)] * 50
    rng, options = np.random.default_rng(0), SpanOptions()
    with pytest.raises(NoSuitableFaceError):
        forge_picture(clip.frames.copy(), 5, 9, kind="self_blend", faces=far, fps=25, rng=rng, options=options)


def test_what_cannot_be_forged_is_refused(clip):
    silent = Clip(clip.frames, np.zeros_like(clip.audio), has_audio=False)
    assert forge_clip(silent, np.random.default_rng(0), NO_DECOYS).record["modality"] == "visual"
    with pytest.raises(ForgeryError, match="it has none"):
        forge_clip(silent, np.random.default_rng(0), NO_DECOYS, modality="audio")
    with pytest.raises(ForgeryError, match="too short"):
        forge_clip(clip.part(0, 5), np.random.default_rng(0), NO_DECOYS)
    mute = Clip(clip.frames, np.zeros_like(clip.audio))
    with pytest.raises(ForgeryError, match="nobody is heard"):
        forge_clip(mute, np.random.default_rng(0), NO_DECOYS, modality="audio")


def test_spans_keep_their_limits_and_lie_where_somebody_speaks(clip):
    audio = clip.audio.copy()
    audio[: 20 * 640] = 0  # silent until .8 s
    half = Clip(clip.frames, audio)
    assert not speaking(half)[:20].any()
    assert speaking(half)[21:].mean() > 0.9
    audio[5 * 640 : 7 * 640] = 0.2  # a click
    assert not speaking(half)[:20].any()
    options = SpanOptions(span_seconds=(0.2, 0.6), span_count=(1, 2), voiced_share=0.9)
    for seed in range(30):
        spans = draw_spans(half, np.random.default_rng(seed), options, speech=True)
        assert 1 <= len(spans) <= 2
        for start, end in spans:
            assert 5 <= end - start <= 15
            assert start >= 18
        assert all(first[1] + 5 <= second[0] for first, second in pairwise(spans))


def test_spans_of_sound_take_the_ends_of_words(clip):
    words = ((0.28, 0.72), (0.72, 1.2), (1.2, 1.64))
    ends = {7, 18, 30, 41}
    for seed in range(10):
        for start, end in draw_spans(clip, np.random.default_rng(seed), SpanOptions(), speech=True, words=words):
            # An end that has no word within .3 s stays.
            assert all(edge in ends or min(abs(edge - e) for e in ends) > 7 for edge in (start, end))


def test_harmless_edits_stay_outside_the_spans(clip):
    options = SpanOptions(decoy_prob=1.0)
    kinds = set()
    for seed in range(10):
        made, record = with_decoys(clip, np.random.default_rng(seed), options, avoid=[(15, 35)])
        assert not changed_frames(made, clip)[15:35].any()
        assert not changed_sound(made, clip)[15:35].any()
        assert changed_frames(made, clip).sum() <= 1
        kinds |= {part["kind"] for part in record}
    assert kinds == {"joined", "gain", "doubled"}
    untouched, record = with_decoys(clip, np.random.default_rng(0), NO_DECOYS)
    assert record == []
    assert untouched.frames is clip.frames


def test_the_same_seed_forges_the_same(clip, faces):
    first, second = (forge_clip(clip, np.random.default_rng(3), SpanOptions(), faces=faces) for _ in range(2))
    np.testing.assert_array_equal(first.clip.frames, second.clip.frames)
    np.testing.assert_array_equal(first.clip.audio, second.clip.audio)
    assert first.record == second.record
