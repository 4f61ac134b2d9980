"""Hooks that save checkpoints: the last few, the final one and the best."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2.engine import HookBase

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.resume import damage_of, read_lightly
from ddl_d2.errors import CheckpointError, SaveError

logger = logging.getLogger(__name__)

Exported = Callable[[], AbstractContextManager[None]]


class RecentCheckpoints(HookBase):
    """Saves `model_<iteration>` every `period` steps, keeping the last `max_to_keep`, and `model_final` at the end.

    After the steps of `keep` a checkpoint is saved, too, and never removed.

    A save that fails is logged, and training goes on; the final one raises SaveError. The names of the files travel in
    the checkpoints, so that a resumed run goes on removing the oldest. For the main process.

    Attributes:
        names: the checkpoints that are kept, oldest first.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_to_keep: int,
        exported: Exported = nullcontext,
        *,
        keep: Sequence[int] = (),
    ) -> None:
        """Save with `checkpointer`; inside of `exported()` the model has the weights for `model_final.safetensors`."""
        self.checkpointer = checkpointer
        self.exported = exported
        self.period = period
        self.max_to_keep = max_to_keep
        self.keep = frozenset(keep)
        self.names: list[str] = []

    def after_step(self) -> None:
        """Save if a checkpoint is due, and after the last step the final one. Raises SaveError for the latter."""
        done = self.trainer.iter + 1
        if done % self.period == 0 or done in self.keep:
            try:
                self.save()
            except SaveError as error:
                following = done + self.period - done % self.period - 1
                logger.error("%s. Training goes on; the next try is at iteration %d", error, following)
        if done >= self.trainer.max_iter:
            self.checkpointer.save("model_final", iteration=self.trainer.iter)
            with self.exported():
                self.checkpointer.save_weights("model_final", iteration=self.trainer.iter)

    def save(self) -> None:
        """Save the step just done, unless that has been done. Raises SaveError."""
        name = _name(self.trainer.iter)
        if self.names[-1:] == [name]:
            return
        before = self.names
        self.names = [n for n in before if n != name] + [name]
        try:
            self.checkpointer.save(name, iteration=self.trainer.iter)
        except SaveError:
            self.names = before
            raise
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        kept = {_name(done - 1) for done in self.keep}
        removed = [name for name in self.names if name not in kept][: -self.max_to_keep]
        if not removed:
            return
        damage = damage_of(self._path(self.names[-1]))
        if damage:
            logger.error("%s was just saved and is %s: older checkpoints are kept", self.names[-1], damage)
            return
        for name in removed:
            if os.path.exists(self._path(name)):
                os.remove(self._path(name))
        self.names = [name for name in self.names if name not in removed]

    def _path(self, name: str) -> str:
        return os.path.join(self.checkpointer.save_dir, f"{name}.pth")

    def state_dict(self) -> dict[str, Any]:
        """Return the names, for a checkpoint."""
        return {"names": list(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the names of a checkpoint."""
        self.names = [str(name) for name in state["names"]]


def _name(iteration: int) -> str:
    return f"model_{iteration:07d}"


class BestCheckpoint(HookBase):
    """Saves `model_best` (.pth and .safetensors) whenever an evaluation gives more of `metric` than any before.

    Where that is not defined, as on images of one class, the first of `instead` counts that is; the log says which. The
    file remembers its score, so that a resumed run does not replace it by worse. For the main process, and after the
    hook that evaluates.

    Attributes:
        best: the highest value so far, None before the first.
        best_by: what `best` is a value of.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        metric: str,
        *,
        instead: Sequence[str] = (),
        exported: Exported = nullcontext,
    ) -> None:
        """Choose by `metric`, or by what stands in for it.

        Args:
            checkpointer: saves, and leaves the tag of the last checkpoint alone.
            metric: as in the storage.
            instead: further metrics, or sums of them ("f1 + iou"), best first.
            exported: inside of it the model has the weights that were evaluated.
        """
        self.checkpointer = checkpointer
        self.exported = exported
        self.metric = metric
        self.choices = (metric, *instead)
        self.best: float | None = None
        self.best_by = metric
        self._seen = -1

    def before_train(self) -> None:
        """Take over the best value of a resumed run; an evaluation may have come before the first step."""
        if self.trainer.start_iter > 0:
            self.best = self._remembered()
        self._compare()

    def after_step(self) -> None:
        """Save if the step ended with a better evaluation."""
        self._compare()

    def after_train(self) -> None:
        """Save if the last evaluation was better."""
        self._compare()

    def _remembered(self) -> float | None:
        path = os.path.join(self.checkpointer.save_dir, "model_best.pth")
        if not os.path.exists(path):
            return None
        try:
            content = read_lightly(path)
        except CheckpointError as error:
            logger.warning("%s: %s. The next evaluation replaces it", path, error)
            return None
        best = content.get("best_metric")
        if not isinstance(best, float):
            logger.warning("%s does not say what it scored: the next evaluation replaces it", path)
            return None
        by = content.get("best_by", self.metric)
        if by not in self.choices:
            logger.warning("%s was chosen by %s: the next evaluation replaces it", path, by)
            return None
        self.best_by = by
        logger.info("The best %s so far is %.5f", by, best)
        return best

    def _compare(self) -> None:
        latest = self.trainer.storage.latest()
        iteration = latest.get(self.metric, (math.nan, self._seen))[1]
        if iteration == self._seen:
            return
        self._seen = iteration
        value, by = self._value(latest, iteration)
        if not math.isfinite(value) or not self._better(value, by):
            logger.info("%s is %.5f at iteration %d: not better than before", by, value, iteration)
            return
        if by not in (self.metric, self.best_by):
            logger.warning("%s is not defined on these images: model_best is chosen by %s", self.metric, by)
        try:
            with self.exported():
                self.checkpointer.save("model_best", iteration=iteration, best_metric=value, best_by=by)
                self.checkpointer.save_weights("model_best", iteration=iteration)
        except SaveError as error:
            logger.error("%s. Training goes on", error)
            return
        self.best, self.best_by = value, by
        logger.info("%s is %.5f at iteration %d: the best so far", by, value, iteration)

    def _value(self, latest: Mapping[str, tuple[float, int]], iteration: int) -> tuple[float, str]:
        """Return the first choice that this evaluation defines, and its name; (NaN, `metric`) if it defines none."""
        for by in self.choices:
            parts = [latest.get(name, (math.nan, iteration)) for name in by.split(" + ")]
            if all(math.isfinite(value) and at == iteration for value, at in parts):
                return sum(value for value, _ in parts), by
        return math.nan, self.metric

    def _better(self, value: float, by: str) -> bool:
        """Compare with the best; values of two metrics are not compared: the one that comes first counts."""
        if self.best is None or by == self.best_by:
            return self.best is None or value > self.best
        return self.choices.index(by) < self.choices.index(self.best_by)
