"""What the command lines share: how they report bad input, how they start, and numbers among their arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from ddl_d2.errors import DdlError, InputError
from ddl_d2.utils.limits import MAX_PIXELS

BAD_INPUT = 2
"""Exit code for input that cannot be used; argparse uses the same for bad arguments."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of programs that SIGINT ends (128 + 2); a training that saved first has 143."""


@contextmanager
def cli_errors() -> Iterator[None]:
    """Report the user's errors in one line on stderr and exit with code 2; a context manager and a decorator.

    Such errors are `DdlError` and OSError. Ctrl-C is one line, too, with exit code 130. Anything else is a fault of the
    program and keeps its traceback. With `DDL_D2_DEBUG=1` everything does.
    """
    try:
        yield
    except (DdlError, OSError) as error:
        if os.environ.get("DDL_D2_DEBUG") == "1":
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error
    except KeyboardInterrupt as error:
        if os.environ.get("DDL_D2_DEBUG") == "1":
            raise
        print("stopped by Ctrl-C", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from error


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command's `main` as a program: its result is the exit code, the user's errors are one line."""
    with cli_errors():
        sys.exit(main())


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error).strip() or type(error).__name__


def threshold(text: str) -> float:
    """An argument in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("must be in [0, 1)")
    return value


def probability(text: str) -> float:
    """An argument in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, for commands that read images without a config, whose INPUT.MAX_PIXELS would say it."""
    parser.add_argument(
        "--max-pixels", type=positive, default=MAX_PIXELS, metavar="N", help="of an image, at most (%(default)s)"
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite, for commands that write one file; see `refuse_existing`."""
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it is there")


def refuse_existing(args: argparse.Namespace) -> None:
    """Refuse to replace the file `args.output` unless --overwrite says so.

    Raises:
        InputError: it is there.
    """
    if args.output.exists() and not args.overwrite:
        raise InputError(f"--output {args.output}: is there already; name another file, or replace it with --overwrite")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
