"""A training that writes down each of its steps, bit for bit: images, losses, weights."""

from __future__ import annotations

import hashlib
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ddl_d2.cli import train as train_command


class Recorder(HookBase):
    """A line of JSON a step and rank in `record-<rank>.jsonl`."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / f"record-{comm.get_rank()}.jsonl"

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        digest = hashlib.sha256()
        for name, value in self._weights().items():
            digest.update(name.encode() + value.detach().numpy().tobytes())
        line = {
            "iteration": self.trainer.iter,
            "images": [row["image_id"] for row in self.trainer.batch],
            "pixels": [hashlib.sha256(row["image"].numpy().tobytes()).hexdigest() for row in self.trainer.batch],
            # Of the main process: the mean over the ranks.
            "losses": {k: v[0].hex() for k, v in latest.items() if "loss" in k},
            "weights": digest.hexdigest(),
        }
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _weights(self) -> dict[str, Any]:
        model = getattr(self.trainer.model, "module", self.trainer.model)
        # The statistics of normalization are those of the main process wherever they are used.
        return model.state_dict() if comm.is_main_process() else dict(model.named_parameters())


def recorded(args: Namespace) -> None:
    """One rank's work, as `ddl_d2.cli.train.train_or_evaluate`."""
    tool = train_command

    class Recorded(tool.ForgeryTrainer):
        def build_hooks(self):
            # Before the one that may end the run.
            timer, *others = super().build_hooks()
            return [timer, Recorder(self.cfg.OUTPUT_DIR), *others]

    tool.ForgeryTrainer = Recorded
    tool.train_or_evaluate(args)


def read(folder: Path, rank: int) -> list[dict[str, Any]]:
    """The steps in the order in which they were done; what was done twice is there twice."""
    path = folder / f"record-{rank}.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
