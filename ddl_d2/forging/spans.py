"""Forging spans of a real clip, in picture and sound.

No published system does this; it carries self-blending (see `self_blend`) over to clips. A forged clip and the real one
differ in the spans alone, but for harmless edits, which real clips undergo as often: a detector that takes any cut for
a forgery learns nothing that holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import binary_opening

from ddl_d2.config.span_options import SpanOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.faces.face import Face
from ddl_d2.forging.picture_spans import NEEDS_FACE, forge_picture
from ddl_d2.forging.sound import inserted, loudness
from ddl_d2.forging.voice import Donor, forge_sound
from ddl_d2.io.clip import Clip

Span = tuple[int, int]
"""First frame, and the frame behind the last."""

MODALITIES = ("visual", "audio", "both")
_TRIES = 60
_GAP = 5  # frames between two spans
_PAUSE = 0.1  # of the loudness of speech: what is softer is a pause
_CLICK = 3  # frames; what is loud for less is a click
_SNAP = 0.3  # seconds that an end may move to the nearest end of a word
_JOINT = 0.01  # seconds that a harmless cut moves the sound
_FEWEST = 8  # frames of a clip that can be forged


@dataclass(frozen=True)
class ForgedClip:
    """A clip with forged spans.

    Attributes:
        clip: the forged clip.
        video_spans: what is forged in its picture, in order of time.
        audio_spans: what is forged in its sound.
        record: everything that was drawn, plain values for JSON.
    """

    clip: Clip
    video_spans: tuple[Span, ...]
    audio_spans: tuple[Span, ...]
    record: dict[str, Any]


def forge_clip(
    clip: Clip,
    rng: np.random.Generator,
    options: SpanOptions,
    *,
    faces: Sequence[Face] = (),
    donor: Donor | None = None,
    words: Sequence[tuple[float, float]] = (),
    modality: str | None = None,
) -> ForgedClip:
    """Forge spans of a clip.

    Args:
        clip: a real clip; not changed.
        rng: the only source of randomness.
        options: what to draw from.
        faces: one a frame (`faces.track.track_face`); without them kinds that need a face are left out.
        donor: gives other clips' sound.
        words: (start, end) of each word in seconds, whose ends the forged spans of sound take.
        modality: one of `MODALITIES`; None draws one by `options.modality_weights`.

    Returns:
        The same for the same arguments and state of `rng`, unless a program speaks.

    Raises:
        ForgeryError: the clip is too short, or has no sound (or no face) where that is all that may be forged.
    """
    if len(clip.frames) < _FEWEST:
        raise ForgeryError(f"a clip of {len(clip.frames)} frames is too short to be forged in part")
    modality = modality or _draw_modality(clip, rng, options)
    visual_kinds = [kind for kind in options.visual_kinds if faces or kind not in NEEDS_FACE]
    audio_kinds = [kind for kind in options.audio_kinds if kind != "speech" or options.speech]
    if modality != "visual" and not (clip.has_audio and audio_kinds):
        raise ForgeryError("its sound cannot be forged: it has none")
    if modality != "audio" and not visual_kinds:
        raise ForgeryError("its picture cannot be forged: no face is found in most of its frames")
    heard = draw_spans(clip, rng, options, speech=True, words=words) if modality != "visual" else ()
    seen = draw_spans(clip, rng, options, speech=False) if modality != "audio" else ()
    if modality == "both" and rng.random() < options.same_spans_prob:
        seen = heard
    frames, audio, rate = clip.frames.copy(), clip.audio, clip.audio_rate
    record: dict[str, Any] = {"modality": modality, "visual": [], "audio": []}
    for start, end in seen:
        kind = visual_kinds[int(rng.integers(len(visual_kinds)))]
        drawn = forge_picture(
            frames, start, end, kind=kind, faces=faces, fps=clip.fps, rng=rng, options=options
        )  # fmt: skip
        record["visual"].append({"span": [start, end], **drawn})
    for start, end in heard:
        first, last = (round(frame / clip.fps * rate) for frame in (start, end))
        kind = audio_kinds[int(rng.integers(len(audio_kinds)))]
        audio, drawn = forge_sound(
            audio, first, last, kind=kind, rate=rate, rng=rng, options=options, donor=donor
        )  # fmt: skip
        record["audio"].append({"span": [start, end], **drawn})
    forged, record["decoys"] = with_decoys(
        replace(clip, frames=frames, audio=audio), rng, options, avoid=(*seen, *heard)
    )
    return ForgedClip(forged, seen, heard, record)


def _draw_modality(clip: Clip, rng: np.random.Generator, options: SpanOptions) -> str:
    if not clip.has_audio:
        return "visual"
    weights = np.asarray(options.modality_weights, np.float64)
    return MODALITIES[int(rng.choice(3, p=weights / weights.sum()))]


def draw_spans(
    clip: Clip,
    rng: np.random.Generator,
    options: SpanOptions,
    *,
    speech: bool,
    words: Sequence[tuple[float, float]] = (),
) -> tuple[Span, ...]:
    """Draw spans that do not touch each other.

    Args:
        clip: in which.
        rng: the only source of randomness.
        options: how many, and how long.
        speech: whether somebody must be heard in them.
        words: see `forge_clip`.

    Returns:
        at least one, in order of time.

    Raises:
        ForgeryError: nobody is heard for long enough.
    """
    total = len(clip.frames)
    count = int(rng.integers(options.span_count[0], options.span_count[1] + 1))
    heard = speaking(clip) if speech else np.ones(total, bool)
    found: list[Span] = []
    for _ in range(_TRIES):
        length = min(max(2, round(float(rng.uniform(*options.span_seconds)) * clip.fps)), total // 2)
        start = int(rng.integers(0, total - length + 1))
        start, end = _at_words(start, start + length, words, clip) if words else (start, start + length)
        apart = all(start >= other[1] + _GAP or end + _GAP <= other[0] for other in found)
        if apart and end - start >= 2 and heard[start:end].mean() >= options.voiced_share * speech:
            found.append((start, end))
            if len(found) == count:
                break
    if not found:
        raise ForgeryError("nobody is heard in it for long enough to be forged")
    return tuple(sorted(found))


def speaking(clip: Clip) -> np.ndarray:
    """Tell for each frame whether its sound is louder than a pause, and not a mere click: bool (t,)."""
    bounds = np.rint(np.arange(len(clip.frames) + 1) / clip.fps * clip.audio_rate).astype(int)
    levels = np.array([loudness(clip.audio[a:b]) for a, b in pairwise(bounds)])
    loud = (levels > _PAUSE * np.quantile(levels, 0.95)) & (levels > 0)
    return binary_opening(loud, np.ones(_CLICK))


def _at_words(start: int, end: int, words: Sequence[tuple[float, float]], clip: Clip) -> Span:
    """A span whose ends move to the nearest ends of words, if those are near."""
    ends = np.unique(np.rint(np.array(words).ravel() * clip.fps).astype(int))
    ends = ends[(ends >= 0) & (ends <= len(clip.frames))]
    moved = [int(ends[np.abs(ends - edge).argmin()]) if len(ends) else edge for edge in (start, end)]
    start, end = (
        new if abs(new - old) <= _SNAP * clip.fps else old for new, old in zip(moved, (start, end), strict=True)
    )
    return start, end


def with_decoys(
    clip: Clip, rng: np.random.Generator, options: SpanOptions, *, avoid: Sequence[Span] = ()
) -> tuple[Clip, list[dict[str, Any]]]:
    """Make harmless edits, each with `options.decoy_prob`, outside the spans to avoid.

    Returns:
        the clip, a copy where it is changed, and what was done.
    """
    frames, audio, rate = clip.frames, clip.audio, clip.audio_rate
    record: list[dict[str, Any]] = []
    fade = round(options.crossfade * rate)
    wanted = [kind for kind in ("joined", "gain", "doubled") if rng.random() < options.decoy_prob]
    for kind in wanted:
        span = _free_span(clip, rng, options, avoid)
        if span is None or (kind != "doubled" and not clip.has_audio):
            continue
        first, last = (round(frame / clip.fps * rate) for frame in span)
        if kind == "doubled":
            frames = frames.copy()
            frames[span[0] + 1] = frames[span[0]]
            record.append({"kind": kind, "frame": span[0] + 1})
            continue
        if kind == "joined":
            moved = int(rng.integers(1, max(2, round(_JOINT * rate))))
            moved = moved if last + moved <= len(audio) else -min(moved, first)
            piece = audio[first + moved : last + moved]
            drawn: dict[str, Any] = {"samples": moved}
        else:
            gain = float(rng.uniform(-options.decoy_gain, options.decoy_gain))
            piece, drawn = audio[first:last] * np.float32(10 ** (gain / 20)), {"gain": round(gain, 2)}
        audio = inserted(audio, first, piece, fade)
        record.append({"kind": kind, "span": list(span), **drawn})
    return replace(clip, frames=frames, audio=audio), record


def _free_span(clip: Clip, rng: np.random.Generator, options: SpanOptions, avoid: Sequence[Span]) -> Span | None:
    """A span that touches none of those to avoid; None if there is no place."""
    total = len(clip.frames)
    for _ in range(_TRIES):
        length = min(max(2, round(float(rng.uniform(*options.span_seconds)) * clip.fps)), total // 2)
        start = int(rng.integers(0, total - length + 1))
        if all(start >= end or start + length <= begin for begin, end in avoid):
            return start, start + length
    return None
