"""Forged spans of sound."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ddl_d2.config.span_options import AUDIO_KINDS, SpanOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.forging import speech
from ddl_d2.forging.alignments import read_words
from ddl_d2.forging.sound import loudness
from ddl_d2.forging.voice import forge_sound

RATE = 16000
SPAN = (12000, 22000)
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")


def talk(seconds=2.0, seed=0):
    """A hum whose pitch and level wander, with formants at 600 and 1800 Hz."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    pitch = np.interp(np.arange(count), np.linspace(0, count, 12), rng.uniform(90, 180, 12))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    level = np.interp(np.arange(count), np.linspace(0, count, 16), rng.uniform(0.1, 1, 16))
    mean = float(pitch.mean())
    weights = [sum(np.exp(-(((k * mean - peak) / 250) ** 2)) for peak in (600, 1800)) + 0.05 for k in range(1, 40)]
    return (0.03 * level * sum(w * np.sin(k * phase) for k, w in enumerate(weights, 1))).astype(np.float32)


@pytest.mark.parametrize("kind", [kind for kind in AUDIO_KINDS if kind != "speech"])
def test_each_kind_changes_its_span_and_nothing_else(kind):
    sound, (start, end) = talk(), SPAN
    made, record = forge_sound(
        sound, start, end, kind=kind, rate=RATE, rng=np.random.default_rng(0), options=SpanOptions()
    )
    np.testing.assert_array_equal(made[:start], sound[:start])
    np.testing.assert_array_equal(made[end:], sound[end:])
    difference = loudness(made[start:end] - sound[start:end])
    assert difference > 0.2 * loudness(sound[start:end])
    assert loudness(made[start:end]) == pytest.approx(loudness(sound[start:end]), rel=0.05)
    assert np.abs(made).max() <= 1
    assert record["kind"] == kind


def test_the_same_draw_gives_the_same_sound():
    for kind in ("vocoded", "room", "pitch"):
        first, second = (
            forge_sound(talk(), *SPAN, kind=kind, rate=RATE, rng=np.random.default_rng(5), options=SpanOptions())[0]
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)


def test_speech_from_elsewhere_is_another_clips_where_there_is_one():
    sound, other = talk(), talk(seed=9)
    options = SpanOptions(other_clip_prob=1.0)
    for donor, said in ((lambda rng: other, "another clip"), (lambda rng: None, "this clip"), (None, "this clip")):
        _, record = forge_sound(
            sound, *SPAN, kind="elsewhere", rate=RATE, rng=np.random.default_rng(0), options=options, donor=donor
        )
        assert record["from"] == said
    # Of this clip another time: the place is not the span's own.
    assert abs(record["sample"] - SPAN[0]) > 2000


@needs_espeak
def test_a_spoken_word():
    word, drawn = speech.spoken_word(np.random.default_rng(0), RATE)
    assert drawn["word"] in speech.WORDS
    assert 0.1 * RATE < len(word) < 3 * RATE
    assert loudness(word) > 0.01
    made, record = forge_sound(
        talk(), *SPAN, kind="speech", rate=RATE, rng=np.random.default_rng(0), options=SpanOptions(speech="espeak-ng")
    )
    assert record["word"] == drawn["word"]
    assert loudness(made[slice(*SPAN)]) == pytest.approx(loudness(talk()[slice(*SPAN)]), rel=0.05)


def test_without_the_program_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(speech, "PROGRAM", "no-such-program")
    with pytest.raises(ForgeryError, match="apt install no-such-program"):
        speech.check_speech()
    with pytest.raises(ForgeryError, match="is not installed"):
        speech.spoken_word(np.random.default_rng(0), RATE)


def test_a_program_that_fails_is_a_plain_error(monkeypatch, tmp_path):
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\necho nothing\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setattr(speech, "PROGRAM", str(program))
    with pytest.raises(ForgeryError, match="failed"):
        speech.spoken_word(np.random.default_rng(0), RATE)


def test_words_of_an_alignment(tmp_path):
    path = tmp_path / "a.align"
    path.write_text("0 12250 sil\n12250 19250 set\n19250 27250 white\n27250 30000 sp\n")
    assert read_words(path) == ((0.49, 0.77), (0.77, 1.09))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:b174\nsize 130\n")
    with pytest.raises(ForgeryError, match="start end word"):
        read_words(path)


def test_options_are_checked():
    with pytest.raises(ValueError, match="unknown audio_kinds"):
        SpanOptions(audio_kinds=("loud",))
    with pytest.raises(ValueError, match="span_seconds"):
        SpanOptions(span_seconds=(2.0, 1.0))
    with pytest.raises(ValueError, match="modality_weights"):
        SpanOptions(modality_weights=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="needs speech"):
        SpanOptions(audio_kinds=("speech",))
