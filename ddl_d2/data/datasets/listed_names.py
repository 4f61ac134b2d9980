"""What lists write, in the spellings they come in: labels in words or numbers, paths of other systems, quotes."""

from __future__ import annotations

import unicodedata

_LABELS = {
    **dict.fromkeys(("0", "0.0", "real", "authentic", "negative", "genuine", "pristine"), 0),
    **dict.fromkeys(("1", "1.0", "fake", "forged", "positive", "tampered", "manipulated", "synthetic"), 1),
}
LABEL_WORDS = "0 or real, 1 or fake"
"""What labels are to be written like, for messages."""
_QUOTES = ('"', "'")


def label_of(value: object) -> int | None:
    """Read a label, 0 real and 1 fake, from a number or a word in upper or lower case; None for anything else."""
    if isinstance(value, str):
        return _LABELS[value] if value in _LABELS else _LABELS.get(unquoted(value).lower())
    return int(value) if isinstance(value, (int, float)) and value in (0, 1) else None  # bool, too


def unquoted(text: str) -> str:
    """Take off white space and, if they stand on both sides, quotes."""
    text = text.strip()
    if text[:1] in _QUOTES and len(text) >= 2 and text[0] == text[-1]:
        text = text[1:-1].strip()
    return text


def with_slashes(path: str) -> str:
    """Write a path with "/", as on every system but Windows."""
    return path.replace("\\", "/")


def same_text(text: str) -> str:
    """Bring a name to one of the forms that Unicode has for it (NFC): macOS keeps another (NFD) than others."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(path: str) -> list[str]:
    """List the ways in which a path that a list names may be written on disk, itself first."""
    forms = [path] if path.isascii() else [path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]
    return list(dict.fromkeys([*forms, *map(with_slashes, forms)]))
