"""Loading and saving weights: safe to read, refused when they do not fit, never half written."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from ddl_d2.engine.precision import compile_parts
from ddl_d2.engine.resuming import TAG, damage_of, newest_valid, read_lightly
from ddl_d2.engine.saving import SaveError, metadata_of, save_tensors, write_safely
from ddl_d2.files import remove_leftovers
from ddl_d2.modeling.for_testing import fold_norms, wrapped_for_testing
from ddl_d2.modeling.mesorch_weights import from_published_mesorch
from ddl_d2.modeling.weights import CheckpointError, from_published_names, load_checkpoint_file

__all__ = ["CheckpointError", "Checkpointer", "LoadReport", "SaveError", "build_trained_model", "load_weights"]

logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """What a checkpoint did not give to a model, and what it holds besides."""

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
    """Load the weights in `path` (.pth, .safetensors, .pkl; published Mask2Former files too) into `model`.

    Args:
        allow_partial: accept missing and misshapen parameters (they keep their initialisation, and are listed in the
            log), as a fresh training that starts from published weights does. Otherwise CheckpointError lists them.
    """
    return _load_state(model, load_checkpoint_file(local_path(path))["model"], str(path), allow_partial)


def build_untrained_model(cfg) -> nn.Module:
    """The model of `cfg` for weights that are loaded later: what its encoders would be initialised from is not read."""
    cfg = cfg.clone()
    cfg.defrost()
    for encoder in (cfg.MODEL.TIMM, cfg.MODEL.MESORCH.LOCAL, cfg.MODEL.MESORCH.GLOBAL):
        encoder.PRETRAINED = ""
    return build_model(cfg)


def build_trained_model(cfg) -> nn.Module:
    """The model of `cfg` with MODEL.WEIGHTS in it, in eval mode; strict unless MODEL.PARTIAL_WEIGHTS.

    It takes the testing rows of `cfg`: with INPUT.FACE_CROP or TEST.TILE, it is the network in an `OnWindows`. It only
    predicts: the batch norms of Detectron2's backbones are folded away (`fold_norms`).

    Raises CheckpointError if MODEL.WEIGHTS is empty, unreadable, or does not fit.
    """
    if not cfg.MODEL.WEIGHTS:
        raise CheckpointError("MODEL.WEIGHTS is empty: give a trained checkpoint, MODEL.WEIGHTS path/to/model.pth")
    model = build_untrained_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=cfg.MODEL.PARTIAL_WEIGHTS)
    fold_norms(model.eval())
    if cfg.MODEL.COMPILE:
        compile_parts(model)
    return wrapped_for_testing(cfg, model)


def local_path(path: str | Path) -> str:
    """`path`, or where a `detectron2://` or `https://` address was downloaded to."""
    if "://" not in str(path):
        return str(path)
    try:
        return PathManager.get_local_path(str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be downloaded ({error}); give a local file") from error


def _load_state(model: nn.Module, weights: dict[str, Tensor], source: str, allow_partial: bool) -> LoadReport:
    own = model.state_dict()
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    weights = from_published_mesorch(from_published_names(weights))
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
    model.load_state_dict(fitting, strict=False)
    if report.missing or report.misshapen:
        logger.warning("%s loaded in part; newly initialised parameters remain: %s", source, report)
    elif report.unused:
        logger.info("%s: %s", source, report)
    return report


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with a safe reader, a strict fit, an atomic writer and a resume that passes by damage.

    `allow_partial` as in `load_weights`; a resumed run is always strict. `tag_last`: whether a saved file becomes the
    one to resume from.

    Attributes:
        resumed_from: the file from which `resume_or_load` resumed; "" if it did not.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_partial: bool = False,
        tag_last: bool = True,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.allow_partial = allow_partial
        self.tag_last = tag_last
        self.resumed_from = ""

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """The newest valid checkpoint of `save_dir` ("" if it has none); raises as `newest_valid`."""
        if not os.path.isdir(self.save_dir):
            return ""
        return str(newest_valid(self.save_dir, self.checkpointables.keys()) or "")

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the newest valid checkpoint of `save_dir`, if asked to and there is one; else load weights."""
        self.resumed_from = self._agree_on_file() if resume else ""
        if not self.resumed_from:
            if resume:
                self.logger.info("No checkpoint in %s to resume from", self.save_dir)
            return self.load(path, checkpointables=[])
        rest = self.load(self.resumed_from)
        self.logger.info("Resumed from %s, iteration %s", self.resumed_from, rest.get("iteration"))
        if self.save_to_disk:
            self.tag_last_checkpoint(os.path.basename(self.resumed_from))
            for name in ("model_final", "model_best"):
                self._complete(name)
        return rest

    def _agree_on_file(self) -> str:
        """The main process looks and decides for all; it also clears away what an interrupted save left."""
        found, problem = "", ""
        if comm.is_main_process() and os.path.isdir(self.save_dir):
            for name in remove_leftovers(self.save_dir):
                self.logger.warning("Removed %s, left by a save that was interrupted", name)
            try:
                found = self.get_checkpoint_file()
            except CheckpointError as error:
                problem = str(error)
        found, problem = comm.all_gather((found, problem))[0]
        if problem:
            raise CheckpointError(problem)
        return found

    def _complete(self, name: str) -> None:
        """Export the weights of `name`.pth anew if a crash kept them from following the file."""
        source = os.path.join(self.save_dir, f"{name}.pth")
        target = os.path.join(self.save_dir, f"{name}.safetensors")
        if not os.path.isfile(source) or damage_of(source):
            return
        content = read_lightly(source)
        iteration = content.get("iteration", "")
        if metadata_of(target).get("iteration") != str(iteration):
            save_tensors(target, content["model"], iteration=iteration)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint_file(local_path(filename))

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        strict = bool(self.resumed_from) or not self.allow_partial
        source = checkpoint.get("__source__", "the checkpoint")
        _load_state(self.model, checkpoint.pop("model"), source, allow_partial=not strict)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load `path`, once, on every rank (an empty path means: keep the initialisation)."""
        if not path:
            self.logger.info("No checkpoint given: the model keeps its initialisation")
            return {}
        checkpoint = self._load_file(path)
        checkpoint["__source__"] = path
        self._load_model(checkpoint)
        wanted = self.checkpointables if checkpointables is None else checkpointables
        for key in wanted:
            if key in checkpoint:
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
        self.logger.info("Loaded %s", path)
        return checkpoint

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth` and the tag of the last checkpoint; readers see the old file or the new one.

        Raises:
            SaveError: it could not be written. Nothing that was there before is changed.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        data |= kwargs
        target = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", target)
        write_safely(target, lambda f: torch.save(data, f))
        if self.tag_last:
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, *, iteration: int) -> None:
        """Write `{save_dir}/{name}.safetensors`, the model's weights alone. Raises SaveError."""
        if self.save_dir and self.save_to_disk:
            target = os.path.join(self.save_dir, f"{name}.safetensors")
            save_tensors(target, self.model.state_dict(), iteration=iteration)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = os.path.join(self.save_dir, TAG)
        write_safely(tag, lambda f: f.write(last_filename_basename.encode()))
