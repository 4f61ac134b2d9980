"""What is refused before a training starts."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ddl_d2.errors import ConfigError

logger = logging.getLogger(__name__)

_AT_LEAST = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.MAX_TO_KEEP": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.ACCUMULATION_PARTS": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "TEST.EVAL_PERIOD": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "ENGINE.HANG_TIMEOUT": 0,
    "ENGINE.STOP_GRACE": 0,
}
"""The smallest values of numbers that a training needs."""


def check_numbers(cfg: CfgNode) -> None:
    """Refuse numbers that would fail only after the first steps, or train nothing and call it a success.

    Raises:
        ConfigError: a number is too small; the message names its key.
    """
    for key, least in _AT_LEAST.items():
        group, name = key.split(".")
        value = cfg[group][name]
        if not value >= least:  # NaN is not either
            raise ConfigError(f"{key} is {value}: for a training it must be at least {least}")


def refuse_sync_bn_on_cpu(model: nn.Module, device: str) -> None:
    """Raise ConfigError for synchronized batch normalization on the CPU, which PyTorch cannot train."""
    if device == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ConfigError(
            "SyncBN trains on GPUs only: on CPUs set MODEL.SYNC_BN False, and MODEL.RESNETS.NORM FrozenBN (or BN)"
        )


def say_what_parts_change(model: nn.Module, parts: int) -> None:
    """Warn of gradient accumulation in a model, in training mode, whose batch norms then see parts of a batch."""
    norms = len(get_bn_modules(model))
    if parts > 1 and norms:
        logger.warning(
            "SOLVER.ACCUMULATION_PARTS %d: %d batch norms see a part of each batch, so that an update is not quite "
            "that of the whole batch",
            parts,
            norms,
        )
