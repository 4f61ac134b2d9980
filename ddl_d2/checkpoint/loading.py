"""Loading weights into a model: refused when they do not fit."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import nn

from ddl_d2.checkpoint.loupe_names import from_published_loupe
from ddl_d2.checkpoint.mask2former_names import from_published_names
from ddl_d2.checkpoint.mesorch_names import from_published_mesorch
from ddl_d2.checkpoint.resume import read_lightly
from ddl_d2.checkpoint.saving import read_metadata
from ddl_d2.checkpoint.segmentor_names import from_published_segmentor
from ddl_d2.checkpoint.shipped import check_digest
from ddl_d2.config.load import config_from_text
from ddl_d2.errors import CheckpointError, ConfigError
from ddl_d2.io.weights import load_checkpoint_file, predicting_weights
from ddl_d2.modeling.meta_arch import BATFD
from ddl_d2.modeling.test_time.build import wrapped_for_testing
from ddl_d2.modeling.test_time.folding import fold_norms
from ddl_d2.utils.precision import compile_parts

logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """What a checkpoint did not give to a model, and what it holds besides.

    Attributes:
        missing: parameters of the model that the checkpoint lacks.
        misshapen: those of another shape, with both shapes.
        unused: tensors of the checkpoint that the model lacks.
    """

    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [
            f"{len(keys)} {what}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}"
            for what, keys in (("missing", self.missing), ("of another shape", self.misshapen), ("unused", self.unused))
            if keys
        ]
        return "; ".join(parts) or "every parameter fits"


def load_weights(model: nn.Module, path: str | Path, *, allow_partial: bool = False) -> LoadReport:
    """Load a file of weights into a model.

    Args:
        model: changed in place.
        path: `.pth`, `.safetensors` or `.pkl`, also with the names of published files: of Mask2Former, Mesorch, SAM,
            IML-ViT, Loupe, BA-TFD and BA-TFD+, and mmsegmentation's HRNet, UperNet and SegFormer.
        allow_partial: accept missing and misshapen parameters (they keep their initialization, and are listed in the
            log), as a fresh training that starts from published weights does. What is frozen besides the backbone must
            be there all the same: it would stay random.

    Raises:
        CheckpointError: the file cannot be read, or is not what its own digest says; it does not fit, and lists what
            is missing; or nothing in it fits.
    """
    local = local_path(path)
    content = load_checkpoint_file(local)
    check_digest(content["model"], local)
    weights = predicting_weights(content)
    if weights is not content["model"]:
        logger.info("%s: the averaged weights of the training (SOLVER.EMA) are used", path)
        content["model"] = weights
    return load_checkpoint(model, content, str(path), allow_partial=allow_partial)


def build_untrained_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config for weights that are loaded later: no pretrained encoder is read."""
    cfg = cfg.clone()
    cfg.defrost()
    mesorch = cfg.MODEL.MESORCH
    for encoder in (cfg.MODEL.TIMM, cfg.MODEL.MIX_TRANSFORMER, cfg.MODEL.PLAIN_VIT, mesorch.LOCAL, mesorch.GLOBAL):
        encoder.PRETRAINED = ""
    return build_model(cfg)


def build_trained_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config with MODEL.WEIGHTS in it, in eval mode; strict unless MODEL.PARTIAL_WEIGHTS.

    It takes the testing rows of `cfg`: with INPUT.FACE_CROP or TEST.TILE, it is the network in an `OnWindows`. It only
    predicts: the batch norms of Detectron2's backbones are folded away (`fold_norms`).

    Raises:
        CheckpointError: MODEL.WEIGHTS is empty, unreadable, or does not fit.
    """
    if not cfg.MODEL.WEIGHTS:
        raise CheckpointError("MODEL.WEIGHTS is empty: give a trained checkpoint, MODEL.WEIGHTS path/to/model.pth")
    model = build_untrained_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=cfg.MODEL.PARTIAL_WEIGHTS)
    fold_norms(model.eval())
    if cfg.MODEL.COMPILE:
        compile_parts(model)
    return wrapped_for_testing(cfg, model)


def local_path(path: str | os.PathLike[str]) -> str:
    """Return a path as it is, and of a `detectron2://` or `https://` address the file to which it was downloaded.

    Raises:
        CheckpointError: the address cannot be downloaded.
    """
    if "://" not in str(path):
        return str(path)
    try:
        return PathManager.get_local_path(str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be downloaded ({error}); give a local file") from error


def load_checkpoint(model: nn.Module, checkpoint: dict[str, Any], source: str, *, allow_partial: bool) -> LoadReport:
    """Load the weights of a checkpoint, under this project's or published names, into a model.

    Args:
        model: changed in place.
        checkpoint: as `load_checkpoint_file` reads it. One that says `matching_heuristics` and names no `backbone.`,
            as the encoders of Detectron2's model zoo do (`R-50.pkl`), is a backbone's.
        source: what errors and the log call it.
        allow_partial: see `load_weights`.

    Raises:
        CheckpointError: as `load_weights`.
    """
    if isinstance(model, BATFD):
        _check_published_clips(model, checkpoint, source)
    own = model.state_dict()
    weights = {key.removeprefix("module."): value for key, value in checkpoint["model"].items()}
    if checkpoint.get("matching_heuristics") and not any(key.startswith("backbone.") for key in weights):
        weights = {f"backbone.{key}": value for key, value in weights.items()}
    for renamed in (from_published_names, from_published_mesorch, from_published_segmentor, from_published_loupe):
        weights = renamed(weights)
    report = LoadReport(
        # A counter that older checkpoints lack and that no computation reads.
        missing=[key for key in own if key not in weights and not key.endswith("num_batches_tracked")],
        misshapen=[
            f"{key} (file {tuple(weights[key].shape)}, model {tuple(own[key].shape)})"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ],
        unused=[key for key in weights if key not in own],
    )
    fitting = {key: weights[key] for key in own if key in weights and weights[key].shape == own[key].shape}
    if not fitting:
        raise CheckpointError(f"{source}: not one of its {len(weights)} tensors belongs to this model ({report})")
    if (report.missing or report.misshapen) and not allow_partial:
        raise CheckpointError(
            f"{source} does not fit the model: {report}. Check --config-file, or accept a partial load with "
            "MODEL.PARTIAL_WEIGHTS True"
        )
    refuse_frozen_noise(model, [key for key in own if key not in fitting], f"{source} does not fit: {report}")
    model.load_state_dict(fitting, strict=False)
    if report.missing or report.misshapen:
        logger.warning("%s loaded in part; newly initialized parameters remain: %s", source, report)
    elif report.unused:
        logger.info("%s: %s", source, report)
    return report


def _check_published_clips(model: BATFD, checkpoint: dict[str, Any], source: str) -> None:
    """Raise CheckpointError for weights of BA-TFD's own code in a model that computes something else with them."""
    if "pytorch-lightning_version" in checkpoint and not model.options.published:
        raise CheckpointError(
            f"{source} was trained with BA-TFD's published code, which samples proposals and attends to channels "
            "otherwise than with MODEL.BATFD.COMPAT exact: set COMPAT published and TEST.TEMPORAL.DECODE published"
        )


def refuse_frozen_noise(model: nn.Module, fresh: Collection[str], why: str) -> None:
    """Refuse to train a model of which a part is frozen as it was initialized, at random.

    A backbone may be: its own config keys say whether it is pretrained.

    Args:
        model: some of whose parameters may be frozen.
        fresh: names of those that were not loaded.
        why: why they were not.

    Raises:
        CheckpointError: names the parts.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    noise = sorted(name for name in frozen.intersection(fresh) if "backbone" not in name.split("."))
    if noise:
        parts = ", ".join(sorted({name.partition(".")[0] for name in noise}))
        raise CheckpointError(
            f"SOLVER.FREEZE keeps {parts} as it is, but {why}: it would stay random ({len(noise)} parameters, such as "
            f"{noise[0]}). Set MODEL.WEIGHTS to the file of the training that learnt it, at the same sizes"
        )


def config_of_weights(path: str | os.PathLike[str]) -> CfgNode | None:
    """Read the config that a file of weights carries, thawed; its datasets are not registered.

    The trainer writes it (`CfgNode.dump`, as YAML) into the metadata of a `.safetensors` file and under the key
    "config" of a `.pth` file. Tensors are not read.

    Args:
        path: a file, or an address as `local_path` takes it.

    Returns:
        the config, or None if the file carries none.

    Raises:
        CheckpointError: the file is missing or damaged, or its config cannot be read.
    """
    local = local_path(path)
    if local.endswith(".safetensors"):
        text = read_metadata(local).get("config")
    elif zipfile.is_zipfile(local):
        try:
            text = read_lightly(local).get("config")
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    else:  # written by others: a pickle of the model zoo, or PyTorch's format before 1.6
        text = load_checkpoint_file(local).get("config")
    if not isinstance(text, str) or not text:
        return None
    try:
        return config_from_text(text)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its config cannot be read ({error}); name one with --config-file") from error
