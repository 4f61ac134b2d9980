"""Decisions that all ranks must come to alike."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def any_rank(*flags: bool | Tensor) -> tuple[bool, ...]:
    """Tell for each flag whether it is set on any rank, in one all-reduce of `len(flags)` numbers.

    Every rank has to call it, with as many flags, at the same place. One process alone communicates nothing.

    Args:
        *flags: bools, or tensors of one element (bool or number; non-zero is set) on any device.
    """
    if comm.get_world_size() == 1:
        return tuple(bool(flag) for flag in flags)
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    # One tensor is built on the device: a flag that is already there is not waited for before the reduction is queued.
    votes = torch.stack([torch.as_tensor(flag, device=device).reshape(()).ne(0).to(torch.int32) for flag in flags])
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return tuple(vote > 0 for vote in votes.tolist())
