"""Processes that work for another (they end with it, and only it may end them), and where one crashed."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection, resource_tracker
from typing import Any

from detectron2.data.build import worker_init_reset_seed
from torch.utils.data import DataLoader

from ddl_d2.utils.shared_memory import InSharedMemory

_PR_SET_PDEATHSIG = 1


def say_where_it_crashes() -> None:
    """Have a crash in compiled code (SIGSEGV, SIGABRT ...) print the Python stacks of all threads on stderr."""
    if not faulthandler.is_enabled():
        faulthandler.enable()


def guarded(loader: DataLoader, timeout: float = 0.0, *, pinned: bool = False) -> DataLoader:
    """Have the workers of `loader` end with this process, and make a batch that they do not bring an error.

    Args:
        loader: changed in place.
        timeout: seconds to wait for a batch before RuntimeError is raised; 0 waits forever.
        pinned: have a thread put the tensors of its batches into pinned memory, from where a GPU takes them by itself.

    Returns:
        `loader`.
    """
    if loader.num_workers:
        loader.timeout = timeout
        loader.pin_memory = pinned
        loader.worker_init_fn = start_worker
        loader.collate_fn = InSharedMemory(loader.collate_fn)
        # Where torch starts the workers, whoever iterates.
        loader._get_iterator = functools.partial(_with_sigterm_held, loader._get_iterator)  # type: ignore[method-assign]
    return loader


def _with_sigterm_held(start: Callable[[], Any]) -> Any:
    """Call `start` so that processes it makes hold SIGTERM back in all their threads, those of libraries too.

    They inherit it: blocking it later, in a worker that was spawned, would miss the threads that imports have started.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return start()
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # its start lets SIGTERM through again, in this thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(worker_id: int) -> None:
    """Prepare a worker process of a loader: its random seed, how it ends, and what signals do."""
    # What a forked worker has inherited is not its to free: it may own threads that only the parent has.
    gc.freeze()
    worker_init_reset_seed(worker_id)
    die_with_parent()
    _only_parent_may_terminate()


def die_with_parent() -> None:
    """Have this process killed as soon as its parent ends in any way (by the kernel, but for that of a fork server).

    On Linux only. Elsewhere a rank that trains notices by itself (`engine.watchdog`), and so does a data worker that is
    not stuck, through torch's check every few seconds.
    """
    if not sys.platform.startswith("linux"):
        return
    known, parent = multiprocessing.parent_process(), os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if known is not None and known.pid != parent:
        # The kernel's parent is a fork server, which lives as long as its children: ask after the one that matters.
        if connection.wait([known.sentinel], 0):
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=_die_at_the_end_of, args=(known.sentinel,), daemon=True).start()
    elif os.getppid() != parent:  # it ended before this could be asked for
        os.kill(os.getpid(), signal.SIGKILL)


def _die_at_the_end_of(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _only_parent_may_terminate() -> None:
    """End this process at a SIGTERM of its parent, and ignore everyone else's.

    Schedulers send SIGTERM to every process of a job, and a terminal Ctrl-C. The parent gets one, too, and sees to its
    workers; a worker that died of its own would break the step that is to be finished.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    known = multiprocessing.parent_process()
    parent = os.getppid() if known is None or known.pid is None else known.pid
    threading.Thread(target=_wait_for_signal_of, args=(parent,), daemon=True).start()


def _wait_for_signal_of(parent: int) -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os._exit(0)
