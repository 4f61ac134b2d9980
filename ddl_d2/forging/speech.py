"""Words spoken by espeak-ng, a program that is installed apart (Debian: `apt install espeak-ng`; GPL-3).

It is called as a program, with a list of arguments and a limit of time; nothing of it is linked or shipped.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import numpy as np
from scipy.signal import resample_poly

from ddl_d2.errors import ForgeryError

PROGRAM = "espeak-ng"
WORDS = (
    "please", "because", "never", "always", "seven", "eleven", "money", "children", "another", "problem", "question",
    "again", "nothing", "yesterday", "morning", "woman", "people", "water", "letter", "number", "green", "white",
    "yellow", "over", "under", "twenty", "nine", "zero", "believe", "together", "country", "family",
)  # fmt: skip
_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4")
_SECONDS = 10.0
_QUIET = 0.02


def check_speech() -> None:
    """Refuse to go on without the program.

    Raises:
        ForgeryError: says how to install it.
    """
    if shutil.which(PROGRAM) is None:
        raise ForgeryError(f"the program {PROGRAM} is not installed: apt install {PROGRAM}, or leave --speech out")


def spoken_word(rng: np.random.Generator, rate: int) -> tuple[np.ndarray, dict[str, str | int]]:
    """Have a random word spoken by a random voice.

    Args:
        rng: draws word, voice, speed and pitch.
        rate: samples a second of the result.

    Returns:
        the sound without the silence around it, float32 (n,), and what was drawn.

    Raises:
        ForgeryError: the program is missing, fails, or takes longer than ten seconds.
    """
    drawn: dict[str, str | int] = {
        "word": WORDS[int(rng.integers(len(WORDS)))],
        "voice": f"{_VOICES[int(rng.integers(len(_VOICES)))]}+{_VARIANTS[int(rng.integers(len(_VARIANTS)))]}",
        "speed": int(rng.integers(120, 200)),
        "pitch": int(rng.integers(20, 80)),
    }
    options = ["-v", str(drawn["voice"]), "-s", str(drawn["speed"]), "-p", str(drawn["pitch"])]
    command = [PROGRAM, "--stdout", *options, "--", str(drawn["word"])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)  # noqa: S603  a fixed list
        with wave.open(io.BytesIO(done.stdout)) as file:
            # Written to a pipe, the header does not know the length: what is there counts.
            data, native = file.readframes(10**7), file.getframerate()
    except FileNotFoundError:
        check_speech()
        raise
    except (subprocess.SubprocessError, wave.Error, EOFError) as error:
        raise ForgeryError(f"{PROGRAM} failed ({error})") from error
    sound = np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(sound) > _QUIET)
    if not len(loud):
        raise ForgeryError(f"{PROGRAM} spoke nothing for {drawn}")
    return resample_poly(sound[loud[0] : loud[-1] + 1], rate, native).astype(np.float32), drawn
