"""What a video sounds like, as one small spectrum for its timeline."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from ddl_d2.errors import ImageReadError
from ddl_d2.io.clip import MAX_SECONDS, read_sound
from ddl_d2.layers.log_mel import log_mel
from ddl_d2.utils.limits import MAX_PIXELS
from ddl_d2.utils.text import printable

logger = logging.getLogger(__name__)
_COLUMNS = 900


def sound_of_video(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """Read the sound of a video whose frames are what is predicted; None if there is none.

    Sound that cannot be decoded counts as none, and is told in the log: nothing is predicted from it.

    Returns:
        float32 (n,) at 16 kHz, from the first frame on.
    """
    try:
        return read_sound(path, seconds=MAX_SECONDS, max_pixels=max_pixels)
    except ImageReadError as error:
        logger.warning("%s: shown without sound (%s)", printable(path), error.reason)
        return None


def spectrum_columns(audio: np.ndarray) -> np.ndarray:
    """Compute the spectrum that a timeline shows: float32 64×C, C at most 900, each the mean of its share of the time.

    Args:
        audio: float32 (n,) at 16 kHz.
    """
    bands = log_mel(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))).numpy()
    bounds = np.linspace(0, bands.shape[1], min(_COLUMNS, bands.shape[1]) + 1).astype(int)
    return np.add.reduceat(bands, bounds[:-1], axis=1) / np.diff(bounds)
