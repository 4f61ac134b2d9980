"""Which config a run or a prediction has: the one that is named, or else the one that the weights carry."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode

from ddl_d2.checkpoint.loading import config_of_weights
from ddl_d2.config.load import merge_options, read_config
from ddl_d2.errors import ConfigError


def config_for(
    weights: str | os.PathLike[str] = "", *, config: str | os.PathLike[str] | None = None, opts: Sequence[str] = ()
) -> CfgNode:
    """The config to use with a file of weights.

    Args:
        weights: the file; it becomes MODEL.WEIGHTS unless it is empty.
        config: a config file, or the name of one of the project's; None takes the config that `weights` carries.
        opts: KEY VALUE KEY VALUE ..., applied last but for MODEL.WEIGHTS.

    Returns:
        the checked and frozen config.

    Raises:
        ConfigError: neither names a config, or a key or value is wrong.
        CheckpointError: the weights cannot be read.
    """
    options = [*opts, *(("MODEL.WEIGHTS", os.fspath(weights)) if weights else ())]
    if config is not None:
        return read_config(config, options)
    found = config_of_weights(weights) if weights else None
    if found is None:
        raise ConfigError(
            f"{weights or 'without weights'}: carries no config, so name one (`ddl-d2 configs` lists them)"
        )
    return merge_options(found, options)
