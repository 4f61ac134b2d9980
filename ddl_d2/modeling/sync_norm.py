"""Batch normalization over the images of all ranks instead of each rank's own."""

from __future__ import annotations

from detectron2.utils import comm
from timm.layers import convert_sync_batchnorm
from torch import nn


def synchronized_norms(model: nn.Module) -> nn.Module:
    """Make every batch norm of a model one over all ranks; on one rank there is nothing to do.

    Names, parameters, running statistics and, in timm's norms that hold one, the activation stay as they are.

    Args:
        model: changed in place, as far as its norms lie in other modules.

    Returns:
        the model; another one only where it is a batch norm itself.
    """
    return model if comm.get_world_size() == 1 else convert_sync_batchnorm(model)
