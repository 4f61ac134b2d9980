"""Hooks that evaluate, and that stop a training between two steps or two batches of an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import nn

from ddl_d2.engine.watchdog import STOPPED
from ddl_d2.evaluation.errors import IncompleteEvaluationError

logger = logging.getLogger(__name__)


class StopWhenAsked(HookBase):
    """Once the ranks have agreed to stop, saves the step just done and leaves the run with exit code 143, on all."""

    def __init__(self, agreed: Callable[[], bool], save: Callable[[], None] | None) -> None:
        """Ask `agreed` after each step; `save` is called on the main process, and None on others."""
        self.agreed = agreed
        self.save = save

    def after_step(self) -> None:
        """Stop if all ranks know of it. Raises SystemExit."""
        if not self.agreed():
            return
        if self.save:
            self.save()
        # Nobody leaves before the checkpoint is whole: torchrun ends all as soon as one has ended.
        comm.synchronize()
        logger.info("Stopped by a signal after iteration %d, which is saved: --resume goes on", self.trainer.iter)
        raise SystemExit(STOPPED)


class Evaluation(hooks.EvalHook):
    """Detectron2's, and it can be stopped between two batches. Whatever ends one early, the training is saved first.

    A run resumed from a checkpoint at which an evaluation was due begins with that: it may not have come to its end.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Any],
        *,
        stop_requested: Callable[[], bool],
        stop_agreed: Callable[[], bool],
        save: Callable[[], None] | None,
    ) -> None:
        """Evaluate every `eval_period` steps, and after the last one.

        Args:
            eval_period: in steps; 0: only after the last one.
            eval_function: evaluates, and returns a nested dict of numbers.
            stop_requested: whether this rank is asked to stop. It need not agree with others: there is nothing to save
                on other ranks, and the launcher stops them.
            stop_agreed: whether the ranks have agreed to stop after this step.
            save: saves the step just done; called on the main process, and None on others.
        """
        super().__init__(eval_period, eval_function)
        self.stop_requested = stop_requested
        self.stop_agreed = stop_agreed
        self.save = save

    def before_train(self) -> None:
        """Evaluate the checkpoint that the run goes on from, if that was due."""
        done = self.trainer.start_iter
        if done > 0 and self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            logger.info("Evaluating first: it was due when the checkpoint was saved")
            self.trainer.storage.iter = done - 1
            self._do_eval()
            self.trainer.storage.iter = done

    def after_train(self) -> None:
        """Evaluate the trained model, unless the training ended early."""
        # Not after a step that failed, were it the last one: ranks that it ended would be waited for.
        if self.trainer.iter >= self.trainer.max_iter and not self.stop_agreed():
            super().after_train()

    def after_step(self) -> None:
        """Evaluate if it is due; an error, or a stop, saves the step first."""
        try:
            super().after_step()
        except BaseException:
            if self.save:
                self.save()
            raise

    def _do_eval(self) -> None:
        share_buffers(self.trainer.model)
        handle = self.trainer.model.register_forward_pre_hook(self._stop_between_batches)
        try:
            super()._do_eval()
        finally:
            handle.remove()

    def _stop_between_batches(self, model: nn.Module, inputs: object) -> None:
        if self.stop_requested():
            logger.info("Stopped by a signal during an evaluation: --resume repeats it")
            raise SystemExit(STOPPED)


class TolerantEvaluation:
    """An evaluation in the course of a training, which an incomplete one does not end.

    The metrics of an incomplete one are left out: of fewer images they are not comparable, and no best checkpoint may
    be chosen by them. They are in the evaluation's `metrics.json`.
    """

    def __init__(self, evaluate: Callable[[], Any]) -> None:
        self.evaluate = evaluate
        self._last: IncompleteEvaluationError | None = None

    def __call__(self) -> Any:
        """Return what `evaluate` does, or `{"num_unreadable": <images>}` where files could not be read."""
        try:
            return self.evaluate()
        except IncompleteEvaluationError as error:
            self._last = error
            logger.error("Training goes on, but without the metrics of an evaluation that is incomplete")
            return {"num_unreadable": len(error.files)}

    def check(self) -> None:
        """Raise IncompleteEvaluationError if any was: the run must not end as if all had been scored."""
        if self._last is not None:
            raise self._last


def share_buffers(model: nn.Module) -> None:
    """Give all ranks the main process' buffers (BatchNorm's statistics), which are those that a checkpoint holds.

    Otherwise each evaluates another network, and a resumed run yet another.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
