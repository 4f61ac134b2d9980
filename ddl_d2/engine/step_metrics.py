"""The losses of training steps, on their way from the device to Detectron2's storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor


class StepRecord(NamedTuple):
    """One step of one rank: its iteration, the losses by name (a vector on their device), and seconds for its data."""

    iteration: int
    names: list[str]
    values: Tensor
    data_time: float


class StepMetrics:
    """Keeps the losses of steps where they were computed, and writes those of many steps at once.

    Reading a loss waits for the device; and ranks that gather theirs wait for each other. What is written, for each
    step, is what Detectron2's `SimpleTrainer.write_metrics` writes.
    """

    def __init__(self) -> None:
        self._kept: list[StepRecord] = []

    def add(self, iteration: int, losses: Mapping[str, Tensor], data_time: float) -> None:
        """Keep a step's losses (0-dim tensors of one device); nobody waits for them."""
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self._kept.append(StepRecord(iteration, list(losses), values, data_time))

    def write(self) -> None:
        """Write what is kept into the current storage, averaged over the ranks; all ranks have to call it."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        host = torch.cat([record.values for record in kept]).cpu().split([len(record.names) for record in kept])
        own = [
            {"data_time": record.data_time} | dict(zip(record.names, values.tolist(), strict=True))
            for record, values in zip(kept, host, strict=True)
        ]
        storage = get_event_storage()
        for record in kept:
            storage.put_scalar("rank_data_time", record.data_time, cur_iter=record.iteration)
        every: list[list[dict[str, Any]]] = comm.gather(own)
        for number, record in enumerate(kept if comm.is_main_process() else []):
            of_ranks = [steps[number] for steps in every]
            means = {name: np.mean([step[name] for step in of_ranks]) for name in record.names}
            slowest = max(step["data_time"] for step in of_ranks)
            storage.put_scalar("data_time", slowest, cur_iter=record.iteration)
            storage.put_scalar("total_loss", sum(means.values()), cur_iter=record.iteration)
            if len(means) > 1:
                storage.put_scalars(cur_iter=record.iteration, **means)
