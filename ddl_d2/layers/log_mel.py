"""The log-mel spectrogram of speech, as audio encoders take it.

Shapes: `B` any leading axes, `n` samples at 16 kHz, `T` video frames at 25 a second (640 samples each), 64 mel bands.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = 640
"""Audio samples that one video frame at 25 a second lasts."""
COLUMNS_PER_FRAME = 4
"""Columns of the spectrogram that one video frame lasts."""

_BANDS = 64
_WINDOW = 321
_HOP = SAMPLES_PER_FRAME // COLUMNS_PER_FRAME
_FLOOR = 0.01
SILENCE = math.log(_FLOOR)
"""The spectrogram's value of no energy."""

_SHORTEST = _WINDOW // 2 + 1  # what reflection at the ends needs


def log_mel(samples: Tensor) -> Tensor:
    """Turn sound into the logarithm of its energy in 64 mel bands, 100 columns a second.

    A periodic Hann window of 321 samples every 160, centered with reflection; power; triangles on HTK's mel scale from
    0 to 8000 Hz without area normalization; log(x + 0.01), so that silence is log 0.01 = -4.605. This is what BA-TFD+
    (Cai et al. 2023, "Glitch in the Matrix") is trained on.

    Args:
        samples: float B×n, 16 kHz, mono, in [-1, 1].

    Returns:
        float32 B×64×(n // 160), at least one column; sound shorter than 161 samples is lengthened by silence.
    """
    columns = max(samples.shape[-1] // _HOP, 1)
    samples = samples.float()
    if samples.shape[-1] < _SHORTEST:
        samples = torch.nn.functional.pad(samples, (0, _SHORTEST - samples.shape[-1]))
    with torch.autocast(samples.device.type, enabled=False):
        flat = samples.reshape(-1, samples.shape[-1])
        window = torch.hann_window(_WINDOW, device=samples.device)
        spectrum = torch.stft(flat, _WINDOW, _HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
        power = spectrum[..., :columns].abs().square()
        bands = mel_filters().to(samples.device) @ power
        return (bands + _FLOOR).log().reshape(*samples.shape[:-1], _BANDS, columns)


@cache
def mel_filters() -> Tensor:
    """Return the triangles of `log_mel`: float32 64×161, a row for each band over the bins of the spectrum."""
    bins = torch.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1, dtype=torch.float64)
    top = _mel(torch.tensor(SAMPLE_RATE / 2, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, 1, _BANDS + 2, dtype=torch.float64) * top / 2595) - 1)
    left, center, right = (corners[i : i + _BANDS, None] for i in range(3))
    rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)
