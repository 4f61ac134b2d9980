"""What the command lines share: how they report bad input, and numbers among their arguments."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

BAD_INPUT = 2
"""Exit code for input that cannot be used; argparse uses the same for bad arguments."""

_CONFIG_CODE = ("yacs", "fvcore.common.config", "detectron2.config")


@contextmanager
def cli_errors() -> Iterator[None]:
    """Report the user's errors in one line on stderr and exit with code 2; a context manager and a decorator.

    Such errors are this project's own exceptions, OSError, and what the config code raises for a bad key or value.
    Anything else is a fault of the program and keeps its traceback. With `DDL_D2_DEBUG=1` everything does.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("DDL_D2_DEBUG") == "1" or not _is_user_error(error):
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] == "ddl_d2":
        return True
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_by_config = bool(modules) and modules[-1].startswith(_CONFIG_CODE)
    return raised_by_config and isinstance(error, (KeyError, ValueError, AssertionError))


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])  # str(KeyError) would add quotes
    return str(error).strip() or type(error).__name__


def threshold(text: str) -> float:
    """An argument in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("must be in [0, 1)")
    return value


def count(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
