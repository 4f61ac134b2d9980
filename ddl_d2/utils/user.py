"""A name for a user who has none, as in a container that runs under a bare user id."""

from __future__ import annotations

import getpass
import os


def name_nameless_user() -> None:
    """Set $USER to "uid-<number>" where the system knows no name for this process's user; else change nothing.

    PyTorch asks for the name when it is imported, and would end the process (`docker run --user 1234`).
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "nobody"
