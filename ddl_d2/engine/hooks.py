"""Training hooks: Detectron2's, where a full disk or a stop must not cost what was learnt; and images."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import nn

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.resume import damage_of, read_lightly
from ddl_d2.engine.watchdog import STOPPED
from ddl_d2.errors import CheckpointError, SaveError
from ddl_d2.inference.overlay import draw_prediction

logger = logging.getLogger(__name__)


class RecentCheckpoints(HookBase):
    """Saves `model_<iteration>` every `period` steps, keeping the last `max_to_keep`, and `model_final` at the end.

    A save that fails is logged, and training goes on; but not if it is the final one: that raises SaveError. Which
    files are its own travels in them, so that a resumed run goes on clearing away. For the main process.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, max_to_keep: int):
        self.checkpointer = checkpointer
        self.period = period
        self.max_to_keep = max_to_keep
        self.names: list[str] = []

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0:
            try:
                self.save()
            except SaveError as error:
                logger.error("%s. Training goes on; the next try is at iteration %d", error, done + self.period - 1)
        if done >= self.trainer.max_iter:
            self.checkpointer.save("model_final", iteration=self.trainer.iter)
            self.checkpointer.save_weights("model_final", iteration=self.trainer.iter)

    def save(self) -> None:
        """A checkpoint of the step just done, unless there is one. Raises SaveError."""
        name = f"model_{self.trainer.iter:07d}"
        if self.names[-1:] == [name]:
            return
        before = self.names
        self.names = [n for n in before if n != name] + [name]
        try:
            self.checkpointer.save(name, iteration=self.trainer.iter)
        except SaveError:
            self.names = before
            raise
        self._clear_away()

    def _clear_away(self) -> None:
        if len(self.names) <= self.max_to_keep:
            return
        damage = damage_of(self._path(self.names[-1]))
        if damage:
            logger.error("%s was just saved and is %s: older checkpoints are kept", self.names[-1], damage)
            return
        for name in self.names[: -self.max_to_keep]:
            if os.path.exists(self._path(name)):
                os.remove(self._path(name))
        self.names = self.names[-self.max_to_keep :]

    def _path(self, name: str) -> str:
        return os.path.join(self.checkpointer.save_dir, f"{name}.pth")

    def state_dict(self) -> dict[str, Any]:
        return {"names": list(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.names = [str(name) for name in state["names"]]


class BestCheckpoint(HookBase):
    """Saves `model_best` (.pth and .safetensors) whenever an evaluation gives more of `metric` than any before.

    The file remembers what it scored, so that a resumed run does not replace it by worse. For the main process, and
    after the hook that evaluates.
    """

    def __init__(self, checkpointer: Checkpointer, metric: str):
        self.checkpointer = checkpointer
        self.metric = metric
        self.best: float | None = None
        self._seen = -1

    def before_train(self) -> None:
        if self.trainer.start_iter > 0:
            self.best = self._remembered()
        self._look()

    def after_step(self) -> None:
        self._look()

    def after_train(self) -> None:
        self._look()

    def _remembered(self) -> float | None:
        path = os.path.join(self.checkpointer.save_dir, "model_best.pth")
        if not os.path.exists(path):
            return None
        try:
            best = read_lightly(path).get("best_metric")
        except CheckpointError as error:
            logger.warning("%s: %s. The next evaluation replaces it", path, error)
            return None
        if not isinstance(best, float):
            logger.warning("%s does not say what it scored: the next evaluation replaces it", path)
            return None
        logger.info("The best %s so far is %.5f", self.metric, best)
        return best

    def _look(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self.metric, (math.nan, self._seen))
        if iteration == self._seen:
            return
        self._seen = iteration
        if not math.isfinite(value) or (self.best is not None and value <= self.best):
            logger.info("%s is %.5f at iteration %d: not better than before", self.metric, value, iteration)
            return
        try:
            self.checkpointer.save("model_best", iteration=iteration, best_metric=value)
            self.checkpointer.save_weights("model_best", iteration=iteration)
        except SaveError as error:
            logger.error("%s. Training goes on", error)
            return
        self.best = value
        logger.info("%s is %.5f at iteration %d: the best so far", self.metric, value, iteration)


class StopWhenAsked(HookBase):
    """Once the ranks have agreed to stop: saves the step just done and leaves the run with exit code 143, on all.

    Args:
        agreed: whether they have.
        save: called on the main process; None on others.
    """

    def __init__(self, agreed: Callable[[], bool], save: Callable[[], None] | None):
        self.agreed = agreed
        self.save = save

    def after_step(self) -> None:
        if not self.agreed():
            return
        if self.save:
            self.save()
        # Nobody leaves before the checkpoint is whole: torchrun ends all as soon as one has ended.
        comm.synchronize()
        logger.info("Stopped by SIGTERM after iteration %d, which is saved: --resume goes on", self.trainer.iter)
        raise SystemExit(STOPPED)


class Evaluation(hooks.EvalHook):
    """Detectron2's, and it can be stopped between two batches. Whatever ends one early, the training is saved first.

    A run resumed from a checkpoint at which an evaluation was due begins with that: it may not have come to its end.

    Args:
        stop_requested: whether this rank is asked to stop. It need not agree with others: there is nothing to save on
            other ranks, and the launcher stops them.
        save: called on the main process; None on others.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Any],
        *,
        stop_requested: Callable[[], bool],
        stop_agreed: Callable[[], bool],
        save: Callable[[], None] | None,
    ):
        super().__init__(eval_period, eval_function)
        self.stop_requested = stop_requested
        self.stop_agreed = stop_agreed
        self.save = save

    def before_train(self) -> None:
        done = self.trainer.start_iter
        if done > 0 and self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            logger.info("Evaluating first: it was due when the checkpoint was saved")
            self.trainer.storage.iter = done - 1
            self._do_eval()
            self.trainer.storage.iter = done

    def after_train(self) -> None:
        # Not after a step that failed, were it the last one: ranks that it ended would be waited for.
        if self.trainer.iter >= self.trainer.max_iter and not self.stop_agreed():
            super().after_train()

    def after_step(self) -> None:
        try:
            super().after_step()
        except BaseException:
            if self.save:
                self.save()
            raise

    def _do_eval(self) -> None:
        _share_buffers(self.trainer.model)
        handle = self.trainer.model.register_forward_pre_hook(self._stop_between_batches)
        try:
            super()._do_eval()
        finally:
            handle.remove()

    def _stop_between_batches(self, model: nn.Module, inputs: object) -> None:
        if self.stop_requested():
            logger.info("Stopped by SIGTERM during an evaluation: --resume repeats it")
            raise SystemExit(STOPPED)


def _share_buffers(model: nn.Module) -> None:
    """Give all ranks the main process' buffers (BatchNorm's statistics), which are those that a checkpoint holds.

    Otherwise each evaluates another network, and a resumed run yet another.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class LastingWriter(hooks.PeriodicWriter):
    """Detectron2's, but a full disk does not end the training."""

    def after_step(self) -> None:
        self._tolerantly(super().after_step)

    def after_train(self) -> None:
        self._tolerantly(super().after_train)

    @staticmethod
    def _tolerantly(write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            logger.error("Metrics cannot be written: %s. Training goes on", error)


class PredictionImages(HookBase):
    """Every `period` steps, shows in TensorBoard what the model sees in some images of a training batch."""

    def __init__(self, period: int, threshold: float, max_images: int = 4):
        self.period = period
        self.threshold = threshold
        self.max_images = max_images
        self._batch: list[dict] | None = None

    def after_step(self) -> None:
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        if self._batch is None:
            # The same images each time, so that progress can be seen.
            self._batch = self.trainer.batch[: self.max_images]
        model = self.trainer.model
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                outputs = model([self._shown(row) for row in self._batch])
        finally:
            model.train(was_training)
        for i, (row, output) in enumerate(zip(self._batch, outputs, strict=True)):
            image = draw_prediction(row["image"].permute(1, 2, 0).numpy(), output, self.threshold)
            name = f"predictions/{i}_{'fake' if row['is_fake'] else 'real'}"
            self.trainer.storage.put_image(name, np.ascontiguousarray(image.transpose(2, 0, 1)))

    @staticmethod
    def _shown(row: dict) -> dict:
        # At the size that was trained on, not that of the original file.
        height, width = row["image"].shape[-2:]
        return row | {"height": height, "width": width}
