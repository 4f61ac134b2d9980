"""When each word of a clip is spoken, from lists as the GRID corpus has them."""

from __future__ import annotations

from pathlib import Path

from ddl_d2.errors import ForgeryError

_UNITS = 25000  # a second
_SILENT = frozenset({"sil", "sp"})


def read_words(path: Path) -> tuple[tuple[float, float], ...]:
    """Read lines `start end word` (in 1/25000 s), as GRID's `.align` files have them.

    Returns:
        (start, end) of each word in seconds, without the silences.

    Raises:
        ForgeryError: it cannot be read, or a line is no such line (a Git LFS pointer is none, either).
    """
    words = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        for line in filter(str.strip, lines):
            start, end, word = line.split()
            if word not in _SILENT:
                words.append((int(start) / _UNITS, int(end) / _UNITS))
    except (OSError, ValueError) as error:
        raise ForgeryError(f"{path}: is no list of `start end word` ({error})") from error
    return tuple(words)
