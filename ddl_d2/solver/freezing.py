"""Training only a part of a model: parameters and batch norms that keep what they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddl_d2.errors import ConfigError

logger = logging.getLogger(__name__)

_FROZEN = "ddl_d2_frozen"
"""The mark of a batch norm that stays in eval mode."""


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training, and have their batch norms use the statistics they have.

    A batch norm is frozen if it is named itself, or all of its parameters are. Whatever mode the model is put into, it
    computes in eval mode, and its statistics stay.

    Args:
        model: changed in place; not yet wrapped for several ranks.
        patterns: shell patterns of names of modules or parameters, such as "backbone" (all of it) or
            "backbone.*.norm1.bias"; "*" also stands for dots.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """
    if not patterns:
        return
    parameters, norms = dict(model.named_parameters()), _norms(model)
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in [*parameters, *norms]):
            some = ", ".join(sorted({name.partition(".")[0] for name in parameters}))
            raise ConfigError(
                f"SOLVER.FREEZE: '{pattern}' matches no parameter and no batch norm. The parts of the model are {some}"
            )
    for name, parameter in parameters.items():
        if any(_matches(name, pattern) for pattern in patterns):
            parameter.requires_grad = False
    frozen = [p for p in parameters.values() if not p.requires_grad]
    if len(frozen) == len(parameters):
        raise ConfigError(f"SOLVER.FREEZE {list(patterns)} leaves no parameter to train")
    kept = [
        norm
        for name, norm in norms.items()
        if any(_matches(name, pattern) for pattern in patterns)
        or (norm.affine and not any(p.requires_grad for p in norm.parameters()))
    ]
    for norm in kept:
        setattr(norm, _FROZEN, True)
    model.register_forward_pre_hook(_keep_frozen)
    _keep_frozen(model)
    logger.info(
        "Frozen: %d of %d parameters (%d numbers) and %d batch norms",
        len(frozen),
        len(parameters),
        sum(p.numel() for p in frozen),
        len(kept),
    )


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a pattern is of a name, or of a module that the name is inside of."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _keep_frozen(model: nn.Module, inputs: object = None) -> None:
    """Put the frozen batch norms back into eval mode; `train` of the whole model has put them into training."""
    for norm in model.modules():
        if getattr(norm, _FROZEN, False):
            norm.training = False
