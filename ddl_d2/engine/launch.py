"""Starting the ranks: Detectron2's own launcher, or the ones that torchrun has already started."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.engine import launch as launch_ranks
from detectron2.utils import comm

from ddl_d2.config import ConfigError


def launch(main: Callable[[Namespace], object], args: Namespace) -> None:
    """Run `main(args)` on every rank: NCCL on GPUs, gloo on CPUs (where `--num-gpus` counts processes).

    Raises:
        ConfigError: more processes than GPUs.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun()
        try:
            main(args)
        finally:
            dist.destroy_process_group()
        return
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and args.num_gpus > gpus:
        raise ConfigError(f"--num-gpus {args.num_gpus}: this machine has {gpus}")
    launch_ranks(
        main,
        max(args.num_gpus, 1),
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _join_torchrun() -> None:
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
