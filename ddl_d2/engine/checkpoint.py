"""Loading and saving weights: safe to read, refused when they do not fit, never half written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from ddl_d2.engine.precision import compile_parts
from ddl_d2.modeling.weights import CheckpointError, from_published_names, load_checkpoint_file

__all__ = ["CheckpointError", "Checkpointer", "LoadReport", "build_trained_model", "load_weights"]

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


def build_trained_model(cfg) -> nn.Module:
    """The model of `cfg` with MODEL.WEIGHTS in it, in eval mode; strict unless MODEL.PARTIAL_WEIGHTS.

    Raises CheckpointError if MODEL.WEIGHTS is empty, unreadable, or does not fit.
    """
    if not cfg.MODEL.WEIGHTS:
        raise CheckpointError("MODEL.WEIGHTS is empty: give a trained checkpoint, MODEL.WEIGHTS path/to/model.pth")
    cfg = cfg.clone()
    cfg.defrost()
    # The checkpoint holds the backbone too: what it was initialised from is not read again.
    cfg.MODEL.TIMM.PRETRAINED = ""
    model = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=cfg.MODEL.PARTIAL_WEIGHTS)
    if cfg.MODEL.COMPILE:
        compile_parts(model)
    return model.eval()


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
    weights = from_published_names({key.removeprefix("module."): value for key, value in weights.items()})
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
    """Detectron2's checkpointer with a safe reader, a strict fit and an atomic writer.

    `allow_partial` as in `load_weights`; a resumed run is always strict. `tag_last`: whether a saved file becomes the
    one to resume from.
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
        self._resuming = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        self._resuming = resume and self.has_checkpoint()
        return super().resume_or_load(path, resume=resume)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint_file(local_path(filename))

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        strict = self._resuming or not self.allow_partial
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
        """Write `{save_dir}/{name}.pth` and the tag of the last checkpoint; readers see the old file or the new one."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        data |= kwargs
        target = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", target)
        _replace(target, lambda f: torch.save(data, f))
        if self.tag_last:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = os.path.join(self.save_dir, "last_checkpoint")
        _replace(tag, lambda f: f.write(last_filename_basename.encode()))


def _replace(target: str, write: Callable[[Any], Any]) -> None:
    """Write beside `target`, flush to disk, then rename over it."""
    temporary = f"{target}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
