"""The processes of a run on this machine: started together, stopped together, and one that fails is named.

torch's own launchers (`ProcessContext.join`, elastic launching) end the other ranks with SIGTERM, which here means
"finish the step and save"; they give them half a minute for it whatever ENGINE.STOP_GRACE says, and of an exception
they pass on the text, not the type. So only the starting is theirs.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, process
from pathlib import Path
from types import FrameType
from typing import NoReturn

from torch.multiprocessing import start_processes

from ddl_d2.engine.watchdog import HUNG, STOPPED
from ddl_d2.errors import RankError, SaveError
from ddl_d2.io.atomic import write_whole
from ddl_d2.utils.processes import die_with_parent, say_where_it_crashes

SETTLE = 2.0
"""Seconds in which ranks that fail because another did may say so."""

_POLL = 0.5


@dataclass
class Rank:
    """One process of a run; an exception that ends it is left in the file `report`."""

    number: int
    process: process.BaseProcess
    report: Path

    @property
    def failed(self) -> bool:
        """Whether the process has ended, and neither well nor stopped."""
        return self.process.exitcode not in (None, 0, STOPPED)

    def error(self) -> tuple[Exception | None, str, str]:
        """Return the exception that ended the rank (None if it cannot be raised here), in a line, and its traceback."""
        if not self.report.exists():
            return None, "", ""
        return pickle.loads(self.report.read_bytes())  # noqa: S301  written by `write_report` in a folder of this run

    def fate(self) -> str:
        """Say what became of the rank, for a message that starts with its number."""
        code, said = self.process.exitcode, self.error()[1]
        if code is None or code == 0:
            return "was ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"failed: {said}" if said else "hung (see above)" if code == HUNG else f"ended with exit code {code}"


class Ranks:
    """The ranks of this machine; they run inside the context, and are gone after it.

    Attributes:
        ranks: in the order of their numbers.
    """

    def __init__(
        self, work: Callable[[int], object], count: int, *, first: int = 0, grace: float, folder: Path
    ) -> None:
        """Prepare `count` processes, which start when the context is entered.

        Args:
            work: what each process does with its number on this machine; must be picklable.
            count: the number of processes.
            first: the rank of the first of them.
            grace: seconds that the ranks have for a stop.
            folder: an empty folder for what the ranks report.
        """
        self.grace = grace
        self.ranks: list[Rank] = []
        self._work, self._count, self._first, self._folder = work, count, first, folder
        self._signals = 0
        # Since a stop was asked for; None: it was not.
        self._kill_at: float | None = None

    def __enter__(self) -> Ranks:
        # The ranks inherit that they ignore it: a terminal sends Ctrl-C to all, and only this process passes it on.
        self._handlers = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
        self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
        context = start_processes(run_rank, (self._work, self._folder), self._count, join=False, start_method="spawn")
        for local, started in enumerate(context.processes):
            self.ranks.append(Rank(self._first + local, started, self._folder / str(local)))
        if self._handlers[signal.SIGINT] is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self.ranks:
            rank.process.kill()
        for rank in self.ranks:
            rank.process.join()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Wait until all ranks have ended well.

        Raises:
            RankError: a rank failed; an exception of it that can be raised here is raised instead.
            SystemExit: with 143, after a SIGTERM or Ctrl-C to this process, or a SIGTERM to a rank that trained.
        """
        running = True
        while running:
            # Looked at before what follows, so that the last to end is judged, too.
            running = any(rank.process.exitcode is None for rank in self.ranks)
            self._wait_for_one(_POLL)
            if self._signals or any(rank.process.exitcode == STOPPED for rank in self.ranks):
                self._stop()
            failed = [rank for rank in self.ranks if rank.failed]
            if self._kill_at is not None:
                # Others can fail for want of one that has stopped already. What was not saved is another matter.
                failed = [rank for rank in failed if isinstance(rank.error()[0], SaveError)]
            if failed:
                self._raise_first()
            if self._signals > 1 or (self._kill_at is not None and time.monotonic() > self._kill_at):
                break
        if self._kill_at is not None:
            raise SystemExit(STOPPED)

    def _wait_for_one(self, seconds: float) -> None:
        connection.wait([rank.process.sentinel for rank in self.ranks if rank.process.exitcode is None], seconds)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _stop(self) -> None:
        """Ask all ranks to stop, once: those that train save first, the others end of the signal."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self.grace
            if self._signals:
                print(
                    "stopping: ranks that train end their step and save; once more ends them at once", file=sys.stderr
                )
            for rank in self.ranks:
                rank.process.terminate()

    def _raise_first(self) -> NoReturn:
        """Name the rank that failed first, after a moment in which others may fail of it; they say so, too."""
        until = time.monotonic() + SETTLE
        while time.monotonic() < until and any(rank.process.exitcode is None for rank in self.ranks):
            self._wait_for_one(until - time.monotonic())
        failed = [rank for rank in self.ranks if rank.failed]
        first = min(failed, key=_blame)
        others = [f"rank {rank.number} {rank.fate()}" for rank in self.ranks if rank is not first]
        what = "; ".join([f"rank {first.number} (process {first.process.pid}) {first.fate()}", *others])
        error, _, trace = first.error()
        if error is None:
            raise RankError(f"{what}\n{trace}".rstrip())
        print(what, file=sys.stderr, flush=True)
        raise error from RankError(f"on rank {first.number}:\n{trace}")


def _blame(rank: Rank) -> tuple[int, float]:
    """Return a number: the lower, the likelier is the rank the cause (killed, hung, the first to raise an error)."""
    code = rank.process.exitcode or 0
    if code < 0:
        return 0, 0.0
    if code == HUNG:
        return 1, 0.0
    return 2, rank.report.stat().st_mtime if rank.report.exists() else float("inf")


def run_rank(local_rank: int, work: Callable[[int], object], folder: Path) -> None:
    """Do `work(local_rank)` in a process that `Ranks` has started; an exception is reported in `folder`."""
    say_where_it_crashes()
    die_with_parent()
    # "spawn" is handed down. Data workers start as in a single process: forked, with no copy of the dataset.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type] # None: the platform's own
    try:
        work(local_rank)
    except Exception as error:  # noqa: BLE001  it is the parent's to raise
        write_report(folder / str(local_rank), error)
        # Not by way of an orderly end, which would wait for threads and for data workers that hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def write_report(path: Path, error: Exception) -> None:
    """Keep `error`, what it says in a line and its traceback for `Rank.error`."""
    line = f"{type(error).__name__}: {str(error).strip()}"
    trace = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps((error, line, trace))
        pickle.loads(content)  # noqa: S301  written in the line above
    except Exception:  # noqa: BLE001  an exception may refuse to be pickled in any way
        content = pickle.dumps((None, line, trace))
    write_whole(path, content)
