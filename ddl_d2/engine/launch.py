"""Starting the ranks of a run, and ending all when one is gone; or joining those that torchrun has started.

Detectron2's launcher ends the others with SIGTERM, which here means "finish the step and save"; and it names no rank.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, process
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT, _distributed_worker
from detectron2.utils import comm

from ddl_d2.checkpoint.saving import write_safely
from ddl_d2.engine.watchdog import HUNG, STOP, STOPPED, TRAINS, connect_launcher
from ddl_d2.errors import ConfigError, RankError, SaveError
from ddl_d2.utils.processes import die_with_parent

_SETTLE = 2.0
"""Seconds in which ranks that fail because another did may say so."""
_MARGIN = 30.0
"""Seconds more than the hang timeout that ranks wait for each other: the one that hangs is to speak first."""


def launch(
    main: Callable[[Namespace], object], args: Namespace, *, hang_timeout: float = 0.0, grace: float = 60.0
) -> None:
    """Run `main(args)` on every rank: NCCL on GPUs, gloo on CPUs (where `--num-gpus` counts processes).

    If one fails, the others are killed. A stop that SIGTERM to this process asks for is passed on to ranks that train
    (see `engine/watchdog.py`), which then save; ranks that do not are killed.

    Args:
        hang_timeout: seconds (and some more) that ranks wait for each other; 0: Detectron2's half hour.
        grace: seconds that ranks have for a stop, and some more.

    Raises:
        ConfigError: more processes than GPUs.
        RankError: a rank died, hung or raised an exception; an exception that can be raised here is.
        SystemExit: with 143, after SIGTERM.
    """
    _say_where_it_crashes()
    timeout = timedelta(seconds=hang_timeout + _MARGIN) if hang_timeout else DEFAULT_TIMEOUT
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun(timeout)
        main(args)
        leave_group()
        return
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and args.num_gpus > gpus:
        raise ConfigError(f"--num-gpus {args.num_gpus}: this machine has {gpus}")
    if max(args.num_gpus, 1) * args.num_machines == 1:
        main(args)
        return
    with (
        TemporaryDirectory(prefix="ddl_d2-ranks-") as folder,
        Ranks(main, args, timeout=timeout, grace=grace + _SETTLE, folder=Path(folder)) as ranks,
    ):
        ranks.wait()


def _say_where_it_crashes() -> None:
    """Have a crash in compiled code (SIGSEGV, SIGABRT ...) print the Python stacks of all threads on stderr."""
    if not faulthandler.is_enabled():
        faulthandler.enable()


def _join_torchrun(timeout: timedelta) -> None:
    die_with_parent()
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def leave_group() -> None:
    """`destroy_process_group`, once nothing else holds the group.

    A DistributedDataParallel that is freed after it would take the group with it while holding the interpreter's lock,
    which gloo's thread may be waiting for to free the last tensors it sent: neither would ever go on (torch 2.11).
    """
    gc.collect()
    dist.destroy_process_group()


@dataclass
class _Rank:
    number: int
    process: process.BaseProcess
    pipe: connection.Connection
    report: Path
    trains: bool = False

    @property
    def failed(self) -> bool:
        return self.process.exitcode not in (None, 0, STOPPED)

    def error(self) -> tuple[Exception | None, str, str]:
        """The exception that ended it, if it can be raised here; that in a line; and its traceback."""
        return pickle.loads(self.report.read_bytes()) if self.report.exists() else (None, "", "")

    def fate(self) -> str:
        code, said = self.process.exitcode, self.error()[1]
        if code is None or code == 0:
            return "was ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"failed: {said}" if said else "hung (see above)" if code == HUNG else f"ended with exit code {code}"


class Ranks:
    """The ranks of this machine: they run inside the context, and are gone after it."""

    def __init__(
        self, main: Callable[[Namespace], object], args: Namespace, *, timeout: timedelta, grace: float, folder: Path
    ) -> None:
        if args.dist_url == "auto" and args.num_machines > 1:
            raise ConfigError("--dist-url auto is for one machine: give tcp://<first machine>:<port>")
        self.count = max(args.num_gpus, 1)
        self.first = args.machine_rank * self.count
        self.grace = grace
        self.ranks: list[_Rank] = []
        url = f"tcp://127.0.0.1:{_free_port()}" if args.dist_url == "auto" else args.dist_url
        world_size = self.count * args.num_machines
        self._work = (main, world_size, self.count, args.machine_rank, url, (args,), timeout)
        self._folder = folder
        # Since a stop was asked for; None: it was not.
        self._kill_at: float | None = None

    def __enter__(self) -> Ranks:
        self._handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        context = torch.multiprocessing.get_context("spawn")
        for local in range(self.count):
            here, there = context.Pipe()
            report = self._folder / f"{local}"
            started = context.Process(target=_run_rank, args=(local, there, str(report), self._work))
            started.start()
            there.close()
            self.ranks.append(_Rank(self.first + local, started, here, report))
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self.ranks:
            rank.process.kill()
        for rank in self.ranks:
            rank.process.join()
        signal.signal(signal.SIGTERM, self._handler)

    def wait(self) -> None:
        """Until all have ended well. Raises as `launch`."""
        running = True
        while running:
            # Looked at before what follows, so that the last to end is judged, too.
            running = any(rank.process.exitcode is None for rank in self.ranks)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                break
            self._wait_for_one(0.5)
            if any(rank.process.exitcode == STOPPED for rank in self.ranks):
                self._stop()
            failed = [rank for rank in self.ranks if rank.failed]
            if self._kill_at is not None:
                # Others can fail for want of one that has stopped already. What was not saved is another matter.
                failed = [rank for rank in failed if isinstance(rank.error()[0], SaveError)]
            if failed:
                self._raise_first()
        if self._kill_at is not None:
            raise SystemExit(STOPPED)

    def _wait_for_one(self, seconds: float) -> None:
        connection.wait([rank.process.sentinel for rank in self.ranks if rank.process.exitcode is None], seconds)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._kill_at is None:
            self._stop()
        else:
            self._kill_at = 0.0

    def _stop(self) -> None:
        """Ask the ranks that train to save and stop; the others have nothing to save."""
        if self._kill_at is not None:
            return
        self._kill_at = time.monotonic() + self.grace
        for rank in self.ranks:
            with contextlib.suppress(OSError, EOFError):
                while rank.pipe.poll():
                    rank.trains |= rank.pipe.recv_bytes() == TRAINS
                if rank.trains:
                    rank.pipe.send_bytes(STOP)
            if not rank.trains:
                rank.process.kill()

    def _raise_first(self) -> NoReturn:
        """Name the rank that failed first, after a moment in which others may fail of it; they say so, too."""
        until = time.monotonic() + _SETTLE
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


def _blame(rank: _Rank) -> tuple[int, float]:
    """The lower, the likelier is it the cause: killed from outside, hung, the first to raise an exception."""
    code = rank.process.exitcode or 0
    if code < 0:
        return 0, 0.0
    if code == HUNG:
        return 1, 0.0
    return 2, rank.report.stat().st_mtime if rank.report.exists() else float("inf")


def _run_rank(local_rank: int, launcher: connection.Connection, report: str, work: tuple) -> None:
    _say_where_it_crashes()
    die_with_parent()
    connect_launcher(launcher)
    # "spawn" is handed down. Data workers start as in a single process: forked, with no copy of the dataset.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    try:
        _distributed_worker(local_rank, *work)
    except Exception as error:  # noqa: BLE001 (it is the parent's to raise)
        _write_report(report, error)
        # Not by way of an orderly end, which would wait for threads and for data workers that hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    leave_group()


def _write_report(path: str, error: Exception) -> None:
    line = f"{type(error).__name__}: {str(error).strip()}"
    trace = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps((error, line, trace))
        pickle.loads(content)
    except Exception:  # noqa: BLE001 (an exception may refuse to be pickled in any way)
        content = pickle.dumps((None, line, trace))
    write_safely(path, lambda f: f.write(content))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
