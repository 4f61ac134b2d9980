"""The file of a training step that was stopped, from which `ddl-d2 replay` runs the step again.

It holds tensors and plain values only, so that the safe loader reads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from ddl_d2.checkpoint.saving import write_safely
from ddl_d2.errors import CheckpointError
from ddl_d2.io.weights import load_checkpoint_file

logger = logging.getLogger(__name__)

_KIND = "__structure__"
_OF_ONE_TENSOR = {"BitMasks": BitMasks, "Boxes": Boxes}


@dataclass
class StoppedStep:
    """One rank's part of a step that was stopped because its numbers are not finite.

    Attributes:
        iteration: the number of the step, from 0.
        rank: whose part.
        world_size: the number of ranks.
        what: what is not finite, in words.
        image_ids: the names of the images.
        batch: the mapper's rows.
        losses: by name; none where the forward pass did not end.
        model: the weights that the step started from (with sharpness-aware minimization, those of the pass that
            failed).
        random_state: before the forward pass, see `utils.seed.random_state`.
        config: the run's, as YAML.
        precision: one of `utils.precision.PRECISIONS`.
        parts: in how many the batch went through the model (SOLVER.ACCUMULATION_PARTS).
    """

    iteration: int
    rank: int
    world_size: int
    what: list[str]
    image_ids: list[str]
    batch: list[dict[str, Any]]
    losses: dict[str, float]
    model: dict[str, Tensor]
    random_state: dict[str, Tensor]
    config: str
    precision: str
    parts: int = 1  # files of earlier versions do not say it

    def write(self, folder: str | os.PathLike[str]) -> Path | None:
        """Save as `iter_<iteration>_rank<rank>.pth` in `folder`; return the path.

        A step that cannot be saved is no reason to hide why it was stopped: the log says so, and None is returned.
        """
        path = Path(folder) / f"iter_{self.iteration}_rank{self.rank}.pth"
        content = vars(self) | {"batch": plain(self.batch)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_safely(str(path), lambda f: torch.save(content, f))
        except OSError as error:
            logger.error("The step that was stopped is not kept: %s", error)
            return None
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StoppedStep:
        """Read what `write` has saved. Raises CheckpointError where the file cannot be read or is another one."""
        content = load_checkpoint_file(os.fspath(path))
        content = {"parts": 1} | content
        missing = [name for name in cls.__dataclass_fields__ if name not in content]
        if missing:
            raise CheckpointError(f"{path}: not a stopped training step (it has no {', '.join(missing)})")
        step = cls(**{name: content[name] for name in cls.__dataclass_fields__})
        step.batch = from_plain(step.batch)
        return step


def plain(value: Any) -> Any:
    """Return `value` as tensors on the CPU, dicts, lists, tuples and plain values; anything else as its text."""
    if isinstance(value, Tensor):
        # A copy: a view would be saved with all that it is a view of.
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Instances):
        return {_KIND: "Instances", "size": list(value.image_size), "fields": plain(value.get_fields())}
    if isinstance(value, (BitMasks, Boxes)):
        return {_KIND: type(value).__name__, "tensor": plain(value.tensor)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else list(map(plain, value))
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def from_plain(value: Any) -> Any:
    """Return what `plain` was given, but for what it turned to text."""
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "Instances":
        return Instances(tuple(value["size"]), **from_plain(value["fields"]))
    if kind in _OF_ONE_TENSOR:
        return _OF_ONE_TENSOR[kind](value["tensor"])
    return {key: from_plain(item) for key, item in value.items()}
