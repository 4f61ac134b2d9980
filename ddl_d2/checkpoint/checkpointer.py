"""Loading and saving weights: safe to read, refused when they do not fit, never half written."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from ddl_d2.checkpoint.changed_keys import check_resumable
from ddl_d2.checkpoint.loading import load_checkpoint, local_path, refuse_frozen_noise
from ddl_d2.checkpoint.resume import TAG, damage_of, newest_valid, read_lightly
from ddl_d2.checkpoint.saving import read_metadata, save_tensors, write_safely
from ddl_d2.errors import CheckpointError
from ddl_d2.io.atomic import remove_leftovers
from ddl_d2.io.weights import load_checkpoint_file, predicting_weights

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with a safe reader, a strict fit, an atomic writer and a resume that passes by damage.

    Attributes:
        resumed_from: the file from which `resume_or_load` resumed; "" if it did not.
        saved_config: the config of that file, as YAML; "" if it is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_partial: bool = False,
        tag_last: bool = True,
        config: str = "",
        **checkpointables: Any,
    ) -> None:
        """Save and load a model, and what else a run consists of.

        Args:
            model: whose weights are saved and loaded; a distributed model is unwrapped.
            save_dir: the folder of the checkpoints; "" saves nothing.
            allow_partial: as in `load_weights`; a resumed run is always strict.
            tag_last: whether a saved file becomes the one to resume from.
            config: the run's config as YAML, which goes into every file (see `config_of_weights`); "": none.
            checkpointables: what is saved besides, with `state_dict` and `load_state_dict`.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.allow_partial = allow_partial
        self.tag_last = tag_last
        self.config = config
        self.resumed_from = ""
        self.saved_config = ""

    def has_checkpoint(self) -> bool:
        """Return whether `save_dir` has a checkpoint to resume from; raises as `newest_valid`."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """Return the newest valid checkpoint of `save_dir` ("" if it has none); raises as `newest_valid`."""
        if not os.path.isdir(self.save_dir):
            return ""
        # A run's state is what "trainer" holds. What else is missing is an error, not a reason to start anew.
        needs = {"trainer"} & self.checkpointables.keys()
        return str(newest_valid(self.save_dir, needs) or "")

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the newest valid checkpoint of `save_dir`, if asked to and there is one; else load weights.

        Raises:
            ConfigError: the checkpoint is of another config, one that a resumed run cannot have (`check_resumable`).
            CheckpointError: as `load` and `newest_valid`.
        """
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
        """Return the file from which all ranks resume, or "".

        The main process looks and decides for all; it also clears away what an interrupted save left.
        """
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
        iteration, config = content.get("iteration", ""), content.get("config", self.config)
        if _saved_iteration(target) != str(iteration):
            # As the export that was lost would have had them.
            save_tensors(target, predicting_weights(content), iteration=iteration, **_described(config))

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint_file(local_path(filename))

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        strict = bool(self.resumed_from) or not self.allow_partial
        source = checkpoint.get("__source__", "the checkpoint")
        load_checkpoint(self.model, checkpoint, source, allow_partial=not strict)
        del checkpoint["model"]

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file, once, on every rank.

        Args:
            path: the file; "" keeps the initialization.
            checkpointables: the names of those to load; None: all.

        Returns:
            what the file holds besides.

        Raises:
            CheckpointError: as `load_weights`.
        """
        if not path:
            fresh = [name for name, _ in self.model.named_parameters()]
            refuse_frozen_noise(self.model, fresh, "MODEL.WEIGHTS is empty")
            self.logger.info("No checkpoint given: the model keeps its initialization")
            return {}
        checkpoint = self._load_file(path)
        checkpoint["__source__"] = path
        if self.resumed_from:
            self._check_resumable(checkpoint)
        self._load_model(checkpoint)
        wanted = self.checkpointables if checkpointables is None else checkpointables
        for key in wanted:
            if key in checkpoint:
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
        self.logger.info("Loaded %s", path)
        return checkpoint

    def _check_resumable(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of a run that this one cannot go on with, before anything is loaded."""
        found = checkpoint.get("config", "")
        self.saved_config = found if isinstance(found, str) else ""
        for change in check_resumable(self.saved_config, self.config):
            self.logger.info("Resumed with another value: %s", change)
        missing = self.checkpointables.keys() - checkpoint.keys()
        if missing:
            what = ", ".join(sorted(missing))
            raise CheckpointError(f"{self.resumed_from}: holds no {what!r}, which a run with this config goes on from")

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth` and the tag of the last checkpoint; readers see the old file or the new one.

        Args:
            name: without its suffix.
            kwargs: what the file holds besides weights, config and `checkpointables`; plain values and tensors.

        Raises:
            SaveError: it could not be written. Nothing that was there before is changed.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data: dict[str, Any] = {"model": self.model.state_dict()} | _described(self.config)
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        data |= kwargs
        target = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", target)
        write_safely(target, lambda f: torch.save(data, f))
        if self.tag_last:
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, *, iteration: int) -> None:
        """Write `{save_dir}/{name}.safetensors`: the model's weights, the iteration and the config.

        Raises:
            SaveError: as `save`.
        """
        if self.save_dir and self.save_to_disk:
            target = os.path.join(self.save_dir, f"{name}.safetensors")
            save_tensors(target, self.model.state_dict(), iteration=iteration, **_described(self.config))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name a file of `save_dir` as the one to resume from. Raises SaveError."""
        tag = os.path.join(self.save_dir, TAG)
        write_safely(tag, lambda f: f.write(last_filename_basename.encode()))


def _described(config: str) -> dict[str, str]:
    """Return the entry that says with which config weights were trained, if that is known."""
    return {"config": config} if config else {}


def _saved_iteration(path: str) -> str | None:
    """Return the iteration of exported weights; None where they are missing or damaged."""
    try:
        return read_metadata(path).get("iteration")
    except CheckpointError:
        return None
