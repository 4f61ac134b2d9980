"""Working on sound."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.forging.sound import (
    HOP,
    inserted,
    loudness,
    matched,
    rebuilt,
    shifted,
    spectrum,
    stretch,
    vocoded,
    with_moved_formants,
)
from tests.clip_files import tone

RATE = 16000


def main_frequency(sound):
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax()) * RATE / len(middle)


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def test_a_spectrum_becomes_the_sound_that_it_was_made_of():
    sound = noise(8000)
    np.testing.assert_allclose(rebuilt(spectrum(sound), 8000)[HOP:-HOP], sound[HOP:-HOP], atol=1e-5)


@pytest.mark.parametrize("length", [8000, 12000, 21000])
def test_stretching_keeps_the_pitch_and_the_level(length):
    made = stretch(tone(1.0, RATE), length)
    assert len(made) == length
    assert main_frequency(made) == pytest.approx(440, abs=3)
    assert loudness(made[1000:-1000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("semitones", [-4.0, -1.5, 3.0, 12.0])
def test_a_shift_of_pitch(semitones):
    made = shifted(tone(1.0, RATE), semitones)
    assert len(made) == RATE
    assert main_frequency(made) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.01)


def test_formants_move_and_the_pitch_stays():
    """Of a hum of 100 Hz with a formant at 1000 Hz the strongest harmonic moves to 1200 Hz."""
    times = np.arange(RATE) / RATE
    hum = sum(np.exp(-(((k * 100 - 1000) / 300) ** 2)) * np.sin(2 * np.pi * 100 * k * times) for k in range(1, 40))
    made = with_moved_formants((hum / 20).astype(np.float32), 1.2)
    assert main_frequency(made) == pytest.approx(1200, abs=110)
    assert main_frequency(made) % 100 == pytest.approx(0, abs=4)


def test_a_vocoded_sound_has_the_spectrum_and_another_wave():
    sound = np.convolve(noise(RATE), np.ones(8) / 8, "same").astype(np.float32)
    made = vocoded(sound, rate=RATE, bands=80, rounds=16, rng=np.random.default_rng(0))
    assert len(made) == len(sound)
    assert abs(np.corrcoef(made, sound)[0, 1]) < 0.5
    power, before = (spectrum(s).abs().square().mean(1).numpy()[4:100] for s in (made, sound))
    assert np.abs(10 * np.log10(power / before)).mean() < 3  # dB
    again = vocoded(sound, rate=RATE, bands=80, rounds=16, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(made, again)


def test_what_is_put_in_sounds_as_loud_and_as_dull_as_what_was_there():
    dull = np.convolve(noise(RATE), np.ones(8) / 8, "same").astype(np.float32)
    made = matched(3 * noise(RATE, seed=1), dull)
    assert loudness(made) == pytest.approx(loudness(dull), rel=1e-3)
    ratio = 10 * np.log10(spectrum(made).abs().square().mean(1) / spectrum(dull).abs().square().mean(1))
    assert float(ratio[:80].abs().mean()) < 1.5  # dB; white noise would be 10 dB off at the upper end
    silent = matched(noise(4000), np.zeros(4000, np.float32))
    assert not silent.any()


def test_a_piece_is_faded_in_inside_its_own_span():
    made = inserted(np.zeros(100, np.float32), 20, np.ones(40, np.float32), 8)
    assert not made[:20].any()
    assert not made[60:].any()
    assert (made[28:52] == 1).all()
    np.testing.assert_allclose(made[20:28], (np.arange(8) + 0.5) / 8)
    assert inserted(np.zeros(10, np.float32), 0, np.full(10, 3, np.float32), 1).max() == 1
