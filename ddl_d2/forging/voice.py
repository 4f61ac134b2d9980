"""Forging a span of sound.

Whatever is put in has the level and the long-term spectrum of what it replaces (moved formants the level alone: their
spectrum is what is forged), and is cross-faded inside the span, so that neither loudness nor a click tells where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from ddl_d2.config.span_options import SpanOptions
from ddl_d2.forging.sound import as_loud, inserted, loudness, matched, shifted, stretch, vocoded, with_moved_formants
from ddl_d2.forging.speech import spoken_word

# Draws the sound of another clip, at the same rate; None if there is none.
Donor = Callable[[np.random.Generator], np.ndarray | None]
Made = tuple[np.ndarray, dict[str, Any]]

_CONTEXT = 4096  # samples on both sides that a change is computed with, and not kept
_SEARCH = 25  # times that a loud piece of speech is looked for


def forge_sound(
    audio: np.ndarray,
    start: int,
    end: int,
    *,
    kind: str,
    rate: int,
    rng: np.random.Generator,
    options: SpanOptions,
    donor: Donor | None = None,
) -> Made:
    """Forge samples `start` to `end` (not included).

    Args:
        audio: float32 (n,); not changed.
        start: first sample of the span.
        end: the sample behind it.
        kind: one of `config.span_options.AUDIO_KINDS`.
        rate: samples a second.
        rng: the only source of randomness.
        options: what to draw from.
        donor: gives other clips' sound to "elsewhere".

    Returns:
        the sound, equal to `audio` outside the span, and what was drawn, as JSON values.

    Raises:
        ForgeryError: "speech" without its program.
        KeyError: an unknown kind.
    """
    replaced = audio[start:end]
    if kind == "elsewhere":
        piece, drawn = _elsewhere(audio, start, end, rng, options, donor)
    elif kind == "speech":
        word, drawn = spoken_word(rng, rate)
        piece = stretch(word, end - start)
    else:
        low, high = max(0, start - _CONTEXT), min(len(audio), end + _CONTEXT)
        made, drawn = _CHANGES[kind](audio[low:high], rate, rng, options)
        piece = made[start - low : end - low]
    piece = as_loud(piece, replaced) if kind == "formants" else matched(piece, replaced)
    return inserted(audio, start, piece, round(options.crossfade * rate)), {"kind": kind, **drawn}


def _vocoded(sound: np.ndarray, rate: int, rng: np.random.Generator, options: SpanOptions) -> Made:
    bands = int(rng.integers(options.bands[0], options.bands[1] + 1))
    rounds = int(rng.integers(options.rounds[0], options.rounds[1] + 1))
    made = vocoded(sound, rate=rate, bands=bands, rounds=rounds, rng=rng)
    return made, {"bands": bands, "rounds": rounds}


def _pitch(sound: np.ndarray, rate: int, rng: np.random.Generator, options: SpanOptions) -> Made:
    del rate
    semitones = float(rng.uniform(*options.semitones) * rng.choice([-1, 1]))
    return shifted(sound, semitones), {"semitones": round(semitones, 2)}


def _formants(sound: np.ndarray, rate: int, rng: np.random.Generator, options: SpanOptions) -> Made:
    del rate
    factor = float(rng.uniform(*options.formants) ** rng.choice([-1, 1]))
    return with_moved_formants(sound, factor), {"factor": round(factor, 3)}


def _room(sound: np.ndarray, rate: int, rng: np.random.Generator, options: SpanOptions) -> Made:
    """Echo as exponentially fading noise, and noise as loud everywhere."""
    echo, below = float(rng.uniform(*options.echo)), float(rng.uniform(*options.noise))
    times = np.arange(int(echo * rate)) / rate
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / echo)
    tail *= 1 / max(float(np.sqrt(np.square(tail).sum())), 1e-8)
    tail[0] = 1.0
    made = fftconvolve(sound, tail)[: len(sound)]
    made = made + rng.standard_normal(len(made)) * loudness(made) * 10 ** (-below / 20)
    return made.astype(np.float32), {"echo": round(echo, 3), "noise": round(-below, 1)}


_CHANGES: dict[str, Callable[[np.ndarray, int, np.random.Generator, SpanOptions], Made]] = {
    "vocoded": _vocoded,
    "pitch": _pitch,
    "formants": _formants,
    "room": _room,
}


def _elsewhere(
    audio: np.ndarray, start: int, end: int, rng: np.random.Generator, options: SpanOptions, donor: Donor | None
) -> Made:
    """Speech of another clip, or of another time of this one: the loudest relative to its clip of a few places."""
    other = donor(rng) if donor is not None and rng.random() < options.other_clip_prob else None
    source = audio if other is None or len(other) <= end - start else other
    length = end - start
    starts = rng.integers(0, len(source) - length + 1, size=_SEARCH)
    if source is audio:
        # As far from the span as the clip allows, or it would be forged with itself.
        starts = starts[np.argsort(np.abs(starts - start))][_SEARCH // 2 :]
    best = max(starts.tolist(), key=lambda first: loudness(source[first : first + length]))
    drawn = {"from": "this clip" if source is audio else "another clip", "sample": int(best)}
    return source[best : best + length].copy(), drawn
