"""Starting a run: in this process, in several of this machine, or in those that torchrun has started."""

from __future__ import annotations

import gc
import os
import socket
from argparse import Namespace
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from ddl_d2.engine.ranks import SETTLE, Ranks
from ddl_d2.errors import ConfigError
from ddl_d2.utils.distributed import patient_group
from ddl_d2.utils.processes import die_with_parent, say_where_it_crashes

_MARGIN = 30.0
"""Seconds more than the hang timeout that ranks wait for each other: the one that hangs is to speak first."""

Main = Callable[[Namespace], object]


def launch(main: Main, args: Namespace, *, hang_timeout: float = 0.0, grace: float = 60.0) -> None:
    """Run `main(args)` on every rank: NCCL on GPUs, gloo on CPUs (where `--num-gpus` counts processes).

    If a rank fails, the others are killed. A SIGTERM or Ctrl-C to this process is passed on to the ranks: those that
    train finish their step and save (see `engine/watchdog.py`), the others end at once.

    Args:
        main: the work of one rank.
        args: Detectron2's command line: `num_gpus`, `num_machines`, `machine_rank` and `dist_url`.
        hang_timeout: seconds (and some more) that ranks wait for each other; 0: Detectron2's half hour.
        grace: seconds that ranks have for a stop, and some more.

    Raises:
        ConfigError: fewer than 0 processes, more than GPUs, or `--dist-url auto` on several machines.
        RankError: a rank died, hung or raised an exception; an exception that can be raised here is raised instead.
        SystemExit: with 143, after SIGTERM or Ctrl-C.
    """
    say_where_it_crashes()
    timeout = timedelta(seconds=hang_timeout + _MARGIN) if hang_timeout else DEFAULT_TIMEOUT
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
        _join_group(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), timeout)
        main(args)
        leave_group()
        return
    if args.num_gpus < 0:
        raise ConfigError(f"--num-gpus {args.num_gpus}: it must be 0 (one process) or more")
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and args.num_gpus > gpus:
        raise ConfigError(f"--num-gpus {args.num_gpus}: this machine has {gpus}")
    count = max(args.num_gpus, 1)
    if count * args.num_machines == 1:
        main(args)
        return
    work = partial(_as_rank, main, args, _address(args), timeout)
    with (
        TemporaryDirectory(prefix="ddl_d2-ranks-") as folder,
        Ranks(work, count, first=args.machine_rank * count, grace=grace + SETTLE, folder=Path(folder)) as ranks,
    ):
        ranks.wait()


def leave_group() -> None:
    """Destroy the process group, once nothing else holds it.

    A DistributedDataParallel that is freed after it would take the group with it while holding the interpreter's lock,
    which gloo's thread may be waiting for to free the last tensors it sent: neither would ever go on (torch 2.11).
    """
    patient_group.cache_clear()
    gc.collect()
    dist.destroy_process_group()


def _address(args: Namespace) -> str:
    """Return where ranks meet: `--dist-url`, or for "auto" a free port of this machine."""
    if args.dist_url != "auto":
        return args.dist_url
    if args.num_machines > 1:
        raise ConfigError("--dist-url auto is for one machine: give tcp://<first machine>:<port>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def _as_rank(main: Main, args: Namespace, address: str, timeout: timedelta, local_rank: int) -> None:
    count = max(args.num_gpus, 1)
    rank, world_size = args.machine_rank * count + local_rank, count * args.num_machines
    _join_group(local_rank, count, timeout, address=address, rank=rank, world_size=world_size)
    main(args)
    leave_group()


def _join_group(
    local_rank: int,
    local_size: int,
    timeout: timedelta,
    *,
    address: str | None = None,
    rank: int = -1,
    world_size: int = -1,
) -> None:
    """Join the process group at `address`, or the one that torchrun describes in the environment."""
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if on_gpus else "gloo", init_method=address, timeout=timeout, rank=rank, world_size=world_size
    )
    comm.create_local_process_group(local_size)
    patient_group()
