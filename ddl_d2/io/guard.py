"""The guard around decoders, and the one way to open a file from outside."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from ddl_d2.errors import ImageReadError

MAX_CONTENT = 512 * 2**20
"""Bytes of the largest file that is read into memory as it is."""


class RefusedError(Exception):
    """Why a file is not taken; `guard` adds which file."""


@contextlib.contextmanager
def guard(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into an ImageReadError that names `path`."""
    try:
        yield
    except RefusedError as refusal:
        raise ImageReadError(path, str(refusal)) from refusal.__cause__
    except FileNotFoundError as error:
        raise ImageReadError(path, "no such file") from error
    except MemoryError as error:
        raise ImageReadError(path, "not enough memory to decode it") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ImageReadError(path, f"cannot be decoded ({type(error).__name__}: {text})") from error


@contextlib.contextmanager
def regular_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file for reading, without ever waiting on a pipe.

    Raises:
        RefusedError: not a regular file, or an empty one.
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("is not a regular file")
        if status.st_size == 0:
            raise RefusedError("is empty (0 bytes)")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read_content(path: str | os.PathLike[str], *, limit: int = MAX_CONTENT) -> bytes:
    """Read all bytes of a file.

    Raises:
        ImageReadError: no regular file, an empty one, or one with more than `limit` bytes.
    """
    with guard(path), regular_file(path) as file:
        content: bytes = file.read(limit + 1)
        if len(content) > limit:
            raise RefusedError(f"is larger than {limit // 2**20} MiB")
        return content


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image or frame without pixels, or with more than `max_pixels`.

    Raises:
        RefusedError: says the size and the limit.
    """
    if width < 1 or height < 1:
        raise RefusedError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise RefusedError(
            f"has {width} x {height} pixels, more than the limit of {max_pixels} (INPUT.MAX_PIXELS, --max-pixels)"
        )
