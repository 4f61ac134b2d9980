"""Working on sound: spectra, stretching, rebuilding, matching, cross-fading.

Sound is float32 (n,), mono. Spectra are complex F×C: F bins from 0 to half the rate, a column every `HOP` samples.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.signal import resample

WINDOW = 512
HOP = 128
_EPS = 1e-8
_MIRRORED = WINDOW // HOP // 2  # columns at each end that hold mirrored sound
_MATCH_LIMIT = 8.0  # a spectrum is raised or lowered by 18 dB at most
_SMOOTHING = 9  # bins over which spectra are compared


def spectrum(sound: np.ndarray) -> torch.Tensor:
    """Transform a sound by columns of `WINDOW` samples."""
    padded = torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32))
    if len(padded) <= WINDOW:
        padded = torch.nn.functional.pad(padded, (0, WINDOW + 1 - len(padded)))
    return torch.stft(padded, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)


def rebuilt(columns: torch.Tensor, length: int) -> np.ndarray:
    """Turn a spectrum back into `length` samples."""
    sound = torch.istft(columns, WINDOW, HOP, window=torch.hann_window(WINDOW), length=max(length, WINDOW + 1))
    return sound.numpy()[:length]


def stretch(sound: np.ndarray, length: int) -> np.ndarray:
    """Make a sound last `length` samples at the same pitch, by a phase vocoder."""
    columns = spectrum(sound).numpy()
    rate = len(sound) / length
    steps = np.arange(0, columns.shape[1] - 1, rate)
    advance = 2 * np.pi * HOP * np.arange(columns.shape[0]) / WINDOW
    before = steps.astype(int)
    share = (steps - before)[None]
    magnitude = (1 - share) * np.abs(columns[:, before]) + share * np.abs(columns[:, before + 1])
    turns = np.angle(columns[:, before + 1]) - np.angle(columns[:, before]) - advance[:, None]
    turns += advance[:, None] - 2 * np.pi * np.round(turns / (2 * np.pi))
    phase = np.cumsum(turns, 1)
    # Phases of neighboring bins belong together: they are those of the loudest column, none of the mirrored ends.
    inner = (before >= _MIRRORED) & (before < columns.shape[1] - _MIRRORED - 1)
    loudest = int((magnitude.sum(0) * (inner if inner.any() else 1)).argmax())
    phase += (np.angle(columns[:, before[loudest]]) - phase[:, loudest])[:, None]
    changed = torch.from_numpy((magnitude * np.exp(1j * phase)).astype(np.complex64))
    return _fitted(rebuilt(changed, HOP * (changed.shape[1] - 1)), length)


def shifted(sound: np.ndarray, semitones: float) -> np.ndarray:
    """Raise (or lower) the pitch of a sound; it lasts as long as before."""
    longer = stretch(sound, round(len(sound) * 2 ** (semitones / 12)))
    return resample(longer, len(sound)).astype(np.float32)


def with_moved_formants(sound: np.ndarray, factor: float, *, lifter: int = 30) -> np.ndarray:
    """Move the envelope of a spectrum up by a factor; the pitch stays.

    Args:
        sound: to change.
        factor: by which each formant's frequency is multiplied.
        lifter: cepstral coefficients that make the envelope.
    """
    columns = spectrum(sound)
    logs = torch.log(columns.abs() + _EPS)
    cepstrum = torch.fft.irfft(logs, dim=0)
    cepstrum[lifter:-lifter] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    bins = torch.arange(len(envelope)) / factor
    low = bins.floor().long().clamp(max=len(envelope) - 1)
    high = (low + 1).clamp(max=len(envelope) - 1)
    share = (bins - low).clamp(max=1)[:, None]
    moved = envelope[low] * (1 - share) + envelope[high] * share
    return rebuilt(columns * torch.exp((moved - envelope).clamp(-4, 4)), len(sound))


def vocoded(sound: np.ndarray, *, rate: int, bands: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Rebuild a sound from its mel bands: a phase is invented by Griffin and Lim's algorithm (1984).

    Args:
        sound: to rebuild.
        rate: samples a second.
        bands: how many.
        rounds: of the algorithm; 0 leaves a random phase.
        rng: draws the phase it starts from.
    """
    columns = spectrum(sound)
    forward, back = _mel_matrices(bands, rate)
    magnitude = (back @ (forward @ columns.abs())).clamp(min=0)
    turn = torch.from_numpy(rng.uniform(-np.pi, np.pi, tuple(magnitude.shape)).astype(np.float32))
    made = torch.polar(magnitude, turn)
    length = HOP * (magnitude.shape[1] - 1)
    for _ in range(rounds):
        again = spectrum(rebuilt(made, length))
        made = torch.polar(magnitude, again.angle())
    return _fitted(rebuilt(made, length), len(sound))


@cache
def _mel_matrices(bands: int, rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """From magnitudes to mel bands (bands×F) and, as well as it goes, back."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, WINDOW // 2 + 1)
    left, center, right = (corners[i : i + bands, None] for i in range(3))
    triangles = np.minimum((bins - left) / (center - left), (right - bins) / (right - center)).clip(0)
    forward = torch.from_numpy(triangles.astype(np.float32))
    return forward, torch.linalg.pinv(forward)


def matched(sound: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give a sound the long-term spectrum (within 18 dB) and the level of another, so that neither tells them apart."""
    columns, target = spectrum(sound), spectrum(like)
    level = loudness(like) / max(loudness(sound), _EPS)
    gains = _mean_spectrum(target) / _mean_spectrum(columns) / max(level, _EPS)
    gains = gains.clamp(1 / _MATCH_LIMIT, _MATCH_LIMIT)
    return as_loud(rebuilt(columns * gains[:, None], len(sound)), like)


def as_loud(sound: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give a sound the level of another."""
    return sound * np.float32(loudness(like) / max(loudness(sound), _EPS))


def _mean_spectrum(columns: torch.Tensor) -> torch.Tensor:
    power = columns.abs().square().mean(1)
    edges = torch.nn.functional.pad(power[None, None], (_SMOOTHING // 2, _SMOOTHING // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(edges, _SMOOTHING, 1)[0, 0].clamp(min=_EPS).sqrt()


def loudness(sound: np.ndarray) -> float:
    """Compute the root mean square of a sound."""
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def inserted(sound: np.ndarray, start: int, piece: np.ndarray, fade: int) -> np.ndarray:
    """Replace samples from `start` on by a piece, cross-fading over `fade` samples inside both of its ends."""
    fade = min(fade, len(piece) // 2)
    weight = np.ones(len(piece), np.float32)
    ramp = (np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1)
    weight[:fade], weight[len(piece) - fade :] = ramp, ramp[::-1]
    made, end = sound.copy(), start + len(piece)
    made[start:end] = piece * weight + sound[start:end] * (1 - weight)
    return np.clip(made, -1, 1)


def _fitted(sound: np.ndarray, length: int) -> np.ndarray:
    """Cut a sound, or repeat its last sample, to have `length` samples."""
    return np.pad(sound[:length], (0, max(0, length - len(sound))), mode="edge")
