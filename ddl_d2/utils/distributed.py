"""Decisions that all ranks must come to alike, and waiting for ranks that need unlike times."""

from __future__ import annotations

import functools
from datetime import timedelta

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


_PATIENCE = timedelta(days=30)


def wait_for_all() -> None:
    """Wait until every rank is here, however long that takes.

    A collective ends the run after ENGINE.HANG_TIMEOUT; the shares of an evaluation, or the deletion of an old store,
    may take longer on one rank than on another. A rank that dies ends this wait, too.
    """
    if comm.get_world_size() > 1:
        dist.barrier(group=patient_group())


@functools.cache
def patient_group() -> dist.ProcessGroup:
    """Return the group in which ranks may wait for each other; the first call has to come from all, about at once."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)
