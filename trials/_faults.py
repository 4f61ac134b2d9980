"""A training in which one rank fails in a way, and at a step, that the environment names.

FAULT is `<what>:<rank>:<iteration>`. In the main process of the rank: `raise`, `hang` (in Python), `wait` (in C++, for
what no other rank sends). In one of its data workers, at a sample instead: `worker-raise`, `worker-hang`.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.utils.data import get_worker_info

from ddl_d2.cli import train as train_command


class Fault(HookBase):
    def __init__(self, what: str, iteration: int) -> None:
        self.what, self.iteration = what, iteration

    def before_step(self) -> None:
        # Within the step, as far as the trainer's watch is concerned.
        if self.trainer.iter == self.iteration:
            self.trainer._trainer.model.register_forward_pre_hook(lambda *_: self.happen())

    def happen(self) -> None:
        if self.what == "raise":
            raise RuntimeError("a fault made for the trial")
        while self.what == "hang":
            time.sleep(0.1)
        if self.what == "wait":
            dist.recv(torch.zeros(1), src=0)


class FaultyMapper:
    """The trainer's own, but the worker that makes the sample `at` fails."""

    def __init__(self, mapper, what: str, at: int) -> None:
        self.mapper, self.what, self.at, self.made = mapper, what, at, 0

    def __call__(self, row):
        worker = get_worker_info()
        if worker is not None and worker.id == 0:
            self.made += 1
            if self.made == self.at and self.what == "raise":
                raise RuntimeError("a fault made for the trial")
            while self.made == self.at and self.what == "hang":
                time.sleep(0.1)
        return self.mapper(row)


def faulty(args: Namespace) -> None:
    """One rank's work, as `ddl_d2.cli.train.train_or_evaluate`."""
    what, rank, at = os.environ["FAULT"].split(":")
    tool = train_command
    trainer = tool.ForgeryTrainer
    if int(rank) == comm.get_rank():

        class Faulty(trainer):
            def build_hooks(self):
                fault = [] if what.startswith("worker-") else [Fault(what, int(at))]
                return [*fault, *super().build_hooks()]

            @classmethod
            def build_train_loader(cls, cfg):
                loader = trainer.build_train_loader(cfg)
                stream = loader._loader.dataset
                if what.startswith("worker-"):
                    stream.mapper = FaultyMapper(stream.mapper, what.removeprefix("worker-"), int(at))
                return loader

        tool.ForgeryTrainer = Faulty
    tool.train_or_evaluate(args)


if __name__ == "__main__":
    sys.exit(train_command.main(work=faulty))
