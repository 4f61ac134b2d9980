"""What forged spans of clips are drawn from: the ranges behind INPUT.SPANS.

Each field is a config key: `span_seconds` is INPUT.SPANS.SPAN_SECONDS. The comment above a field is its documentation,
also in the config reference. A range is (smallest, largest). A probability of 0 switches a step off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ddl_d2.config.forgery_options import IntRange, Probability, Range, Within, check_fields

VISUAL_KINDS = ("self_blend", "other_mouth", "repeated", "reversed", "retimed")
"""How a span of the picture can be forged; `ddl_d2.forging.picture_spans` says what each does."""
AUDIO_KINDS = ("vocoded", "pitch", "formants", "elsewhere", "room", "speech")
"""How a span of the sound can be forged; `ddl_d2.forging.voice` says what each does."""
SPEECH = ("", "espeak-ng")


@dataclass(frozen=True)
class SpanOptions:
    """The ranges that the forged spans of a clip are drawn from; the comment above each field is its meaning.

    Raises:
        ValueError: a value out of its limits, a range the wrong way round, an unknown kind.
    """

    # Weights with which the picture alone, the sound alone, or both of a clip are forged.
    modality_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    # Where both are forged: how likely in the same spans. Otherwise each in its own.
    same_spans_prob: Probability = 0.5
    # Number of forged spans of a clip (of each modality, where they differ), less where it is too short.
    span_count: Annotated[IntRange, Within(1, 16)] = (1, 2)
    # Length of a span, seconds; at most half of the clip.
    span_seconds: Annotated[Range, Within(0.08, 60.0)] = (0.2, 1.6)
    # At least this share of a forged span of sound is louder than the pauses of the clip.
    voiced_share: Probability = 0.5
    # How a span of the picture is forged, each name as likely (one that is named twice twice as likely): "self_blend"
    # (a part of the face blended with itself), "other_mouth" (the lower face of another time), "repeated", "reversed"
    # and "retimed" frames.
    visual_kinds: tuple[str, ...] = ("self_blend", "self_blend", "other_mouth", "repeated", "reversed", "retimed")
    # How a span of the sound is forged, as VISUAL_KINDS: "vocoded" (the same word with an invented phase), "pitch",
    # "formants" (a smaller or larger mouth), "elsewhere" (speech of another time, or another clip's where there is
    # one), "room" (echo and noise), "speech" (a word by the program SPEECH; left out without it).
    audio_kinds: tuple[str, ...] = AUDIO_KINDS
    # The program that speaks: "espeak-ng", or "" for none.
    speech: str = ""
    # "vocoded": number of mel bands that the sound is rebuilt from.
    bands: Annotated[IntRange, Within(8, 256)] = (48, 96)
    # "vocoded": rounds of Griffin and Lim's algorithm.
    rounds: Annotated[IntRange, Within(0, 256)] = (8, 32)
    # "pitch": change, semitones, up or down.
    semitones: Annotated[Range, Within(0.1, 12.0)] = (1.5, 4.0)
    # "formants": factor by which they move, up or down.
    formants: Annotated[Range, Within(1.01, 2.0)] = (1.1, 1.3)
    # "room": seconds in which the echo fades by 60 dB.
    echo: Annotated[Range, Within(0.02, 2.0)] = (0.15, 0.5)
    # "room": noise below the sound, dB.
    noise: Annotated[Range, Within(0.0, 80.0)] = (20.0, 40.0)
    # "elsewhere": how likely the speech is another clip's, where there is one.
    other_clip_prob: Probability = 0.7
    # "other_mouth": how far away in time the mouth is taken from, seconds; less in short clips.
    mouth_offset: Annotated[Range, Within(0.1, 60.0)] = (0.4, 1.5)
    # Length of the cross-fades at the ends of a span of sound, inside it, seconds.
    crossfade: Annotated[float, Within(0.001, 0.1)] = 0.008
    # How likely each harmless edit is made outside the spans, and in real clips: sound cut and joined again, a span of
    # it a little louder or softer, a frame doubled.
    decoy_prob: Probability = 0.5
    # The largest gain of such a span, dB, either way.
    decoy_gain: Annotated[float, Within(0.0, 6.0)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name, values, known in (
            ("visual_kinds", self.visual_kinds, VISUAL_KINDS),
            ("audio_kinds", self.audio_kinds, AUDIO_KINDS),
            ("speech", (self.speech,), SPEECH),
        ):
            unknown = [value for value in values if value not in known]
            if unknown or not values:
                raise ValueError(f"unknown {name} {unknown or values}; known: {', '.join(map(repr, known))}")
        weights = self.modality_weights
        if len(weights) != 3 or min(weights) < 0 or not sum(weights):
            raise ValueError(f"modality_weights are three (picture, sound, both), none negative, not all 0: {weights}")
        if self.audio_kinds == ("speech",) and not self.speech:
            raise ValueError('audio_kinds ["speech"] needs speech "espeak-ng"')
