"""Reading the text and JSON files that come with datasets."""

from __future__ import annotations

import json
from typing import Any

from ddl_d2.errors import DatasetError


def read_text(path: str) -> str:
    """Read a text file, with or without a byte order mark (UTF-8, UTF-16); invalid bytes become surrogates."""
    with open(path, "rb") as file:
        return decoded(file.read())


def read_lines(path: str) -> list[str]:
    """Read the lines of a text file as `read_text` does; they end as on Unix, Windows or old Macs (CR)."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def decoded(data: bytes) -> str:
    """Decode the bytes of a text file as `read_text` does."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")


def read_json(path: str) -> Any:
    """Read a JSON file, with or without a byte order mark.

    Raises:
        DatasetError: it cannot be read, or is not JSON.
    """
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError) as error:  # bad JSON and bad encoding are ValueErrors
        raise DatasetError(f"{path}: cannot be read as JSON ({error})") from error
