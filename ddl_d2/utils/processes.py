"""Processes that work for another: they end with it, and only it may end them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

from detectron2.data.build import worker_init_reset_seed
from torch.utils.data import DataLoader

_PR_SET_PDEATHSIG = 1


def guarded(loader: DataLoader, timeout: float = 0.0) -> DataLoader:
    """`loader`, changed in place: its workers end with this process, and a batch that they do not bring is an error.

    Args:
        timeout: seconds to wait for a batch before RuntimeError is raised; 0 waits forever.
    """
    if loader.num_workers:
        loader.timeout = timeout
        loader.worker_init_fn = start_worker
    return loader


def start_worker(worker_id: int) -> None:
    """What a worker of a loader does first."""
    worker_init_reset_seed(worker_id)
    die_with_parent()
    _only_parent_may_terminate()


def die_with_parent() -> None:
    """This process is killed as soon as its parent ends in any way.

    On Linux only. Elsewhere a rank notices through the pipe that its launcher holds, and a worker that is not stuck
    through its own check every few seconds (torch's).
    """
    if not sys.platform.startswith("linux"):
        return
    known = multiprocessing.parent_process()
    parent = known.pid if known else os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this could be asked for
        os.kill(os.getpid(), signal.SIGKILL)


def _only_parent_may_terminate() -> None:
    """SIGTERM ends this process if its parent sent it; anyone else's is meant for the parent, too, which sees to it.

    Schedulers send it to every process of a job. A worker that died of it would break the step that is to be finished.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parents_signal, daemon=True).start()


def _wait_for_parents_signal() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
