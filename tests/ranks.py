"""Running a function in several forked processes that form a group."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed
import torch.multiprocessing

from ddl_d2.engine.launch import leave_group

_SECONDS = 120.0


def run_ranks(work: Callable[..., None], count: int, folder: Path, *arguments: object) -> None:
    """`work(rank, *arguments)` in each of `count` processes; an exception in one, or two minutes, fail the test."""
    # Forked, since importing anew takes each process seconds.
    ranks = torch.multiprocessing.start_processes(
        _rank, (count, folder, work, arguments), nprocs=count, join=False, start_method="fork"
    )
    until = time.monotonic() + _SECONDS
    while not ranks.join(1.0):
        if time.monotonic() > until:
            for process in ranks.processes:
                process.kill()
            pytest.fail(f"{count} ranks did not end in {_SECONDS:.0f} s")


def _rank(rank: int, count: int, folder: Path, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    # The threads of the process this one was forked from are not here; of its own, one will do.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=count, timeout=timedelta(seconds=_SECONDS)
    )
    work(rank, *arguments)
    leave_group()
