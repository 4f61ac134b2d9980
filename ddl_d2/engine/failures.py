"""What a stopped training step leaves: a file from which `ddl-d2 replay` runs it again.

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
class Failure:
    """One rank's part of a step whose numbers are not finite.

    `what` is not finite; `batch` mapper rows; `losses` by name (none where the forward pass did not end); `model` the
    weights that the step started from (with sharpness-aware minimization, those of the pass that failed);
    `random_state` before the forward pass, see the function of that name; `config` as YAML; `precision` as in
    `engine.precision`.
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

    def write(self, folder: str | os.PathLike[str]) -> Path | None:
        """Save as `iter_<iteration>_rank<rank>.pth` in `folder`; None, with the reason in the log, if it cannot be."""
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
    def load(cls, path: str | os.PathLike[str]) -> Failure:
        """Raises CheckpointError where the file cannot be read or is no such file."""
        content = load_checkpoint_file(os.fspath(path))
        missing = [name for name in cls.__dataclass_fields__ if name not in content]
        if missing:
            raise CheckpointError(f"{path}: not a failed training step (it has no {', '.join(missing)})")
        failure = cls(**{name: content[name] for name in cls.__dataclass_fields__})
        failure.batch = from_plain(failure.batch)
        return failure


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators, by kind of device: what `set_random_state` goes back to."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> bool:
    """Draw again what was drawn after `random_state`; False where `device` is of another kind than it was then."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    return (device.type == "cuda") == ("cuda" in state)


def plain(value: Any) -> Any:
    """`value` as tensors on the CPU, dicts, lists, tuples and plain values; of what it cannot be, its text."""
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
    """What `plain` was given, but for what it turned to text."""
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
