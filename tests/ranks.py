"""Running a function in several forked processes that form a group, for tests and trials."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from detectron2.utils import comm

from ddl_d2.engine.launch import leave_group


def on_ranks(work: Callable[..., Any], world_size: int, *args: Any, seconds: float = 300.0) -> list[Any]:
    """What `work(rank, *args)` gives on each of `world_size` processes; where it raises, or hangs, a text that says so.

    Forked, since importing anew takes each process seconds. What they print goes nowhere.
    """
    context = torch.multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [context.Process(target=_rank, args=(r, world_size, folder, work, args)) for r in range(world_size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
            process.kill()
        return [_result(folder / f"{rank}.pth") for rank in range(world_size)]


def _result(path: Path) -> Any:
    return torch.load(path, weights_only=False) if path.exists() else "it died, or had to be killed"


def _rank(rank: int, world_size: int, folder: Path, work: Callable[..., Any], args: tuple) -> None:
    # The threads of the process this one was forked from are not here; of its own, one will do.
    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
        comm.create_local_process_group(world_size)
    try:
        result = work(rank, *args)
        if world_size > 1:
            leave_group()
    except BaseException:  # noqa: BLE001 (the test is to see it)
        result = "..." + traceback.format_exc()[-800:]
    torch.save(result, folder / f"{rank}.unfinished")
    os.replace(folder / f"{rank}.unfinished", folder / f"{rank}.pth")
