"""Text that any terminal, font and JSON reader takes."""

from __future__ import annotations

import os


def printable(text: str | os.PathLike[str]) -> str:
    """`text` on one line and encodable, whatever a file name holds: other characters are written as escapes."""
    text = os.fspath(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
