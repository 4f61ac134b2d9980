"""A run's OUTPUT_DIR: one training at a time writes to it, and what another has left is not replaced unasked."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ddl_d2.checkpoint.resume import TAG
from ddl_d2.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
"""The file in OUTPUT_DIR that a training holds; it says on which host and as which process it runs."""

_CHECKPOINT = re.compile(r"model_(\d{7}|final|best)\.(pth|safetensors)")
_OF_A_RUN = re.compile(rf"{_CHECKPOINT.pattern}|{TAG}|metrics\.json|events\.out\.tfevents\..*")


def refuse_finished(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder in which a run has saved weights.

    Raises:
        InputError: names one of its files, and what to do.
    """
    found = _files(folder, _CHECKPOINT)
    if found:
        raise InputError(
            f"{os.fspath(folder)} holds a run ({found[-1].name}): --resume goes on with it, --overwrite deletes its "
            "checkpoints and metrics and trains anew, and another OUTPUT_DIR leaves it alone"
        )


def clear_run(folder: str | os.PathLike[str]) -> None:
    """Delete the checkpoints, exported weights and metrics of a run; what else is in the folder stays."""
    for path in _files(folder, _OF_A_RUN):
        path.unlink()


@contextlib.contextmanager
def claimed(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only training that writes to a folder, which is made; the claim ends with the block or the process.

    The operating system holds the lock (POSIX record locks, also over NFS), so that it is free at once when a process
    was killed, whatever the file says. Where the file system has no locks, the host and process that the file names
    decide: it is stale if that process is gone from this host.

    Raises:
        InputError: another training has the folder; names its host and process.
        OSError: the folder or the file cannot be written.
    """
    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _locked(path)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: nobody else can have taken it
        os.close(handle)


def _locked(path: Path) -> int:
    """Open the file and lock it; returns its descriptor, which keeps the lock until it is closed."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            _lock(handle, path)
            # The file may have been removed, by the training before, between the opening and the locking.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    owner = os.pread(handle, 300, 0).decode(errors="replace").split()
    try:
        if fcntl is None:
            raise OSError("no locks on this system")
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # held by another process
        raise _taken(path, owner) from error
    except OSError as error:  # no locks here
        if len(owner) == 2 and not _gone(*owner):
            raise _taken(path, owner) from error


def _taken(path: Path, owner: list[str]) -> InputError:
    who = f"process {owner[1]} on {owner[0]}" if len(owner) == 2 else "another process"
    return InputError(
        f"{path.parent}: {who} trains in this folder. Wait for its end or stop it, or choose another OUTPUT_DIR "
        f"(a training that is gone for certain has left {path.name}: delete that)"
    )


def _gone(host: str, process: str) -> bool:
    """Tell whether a process has ended; of another host that cannot be known, and it counts as running."""
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(process) == os.getpid()  # this process has the number now, and did not write the file


def _files(folder: str | os.PathLike[str], names: re.Pattern[str]) -> list[Path]:
    path = Path(folder)
    return sorted(p for p in path.iterdir() if names.fullmatch(p.name)) if path.is_dir() else []
