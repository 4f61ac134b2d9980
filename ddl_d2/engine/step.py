"""One training step, which refuses to learn from numbers that are not finite."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.data.loader import TrainLoader
from ddl_d2.engine.non_finite import Attempt, StepGuard
from ddl_d2.engine.step_metrics import StepMetrics
from ddl_d2.errors import ConfigError, NonFiniteError
from ddl_d2.io.bad_files import NO_BAD_FILES, BadFiles
from ddl_d2.modeling.whole_batch import in_parts
from ddl_d2.solver.sam import frozen_running_statistics, random_numbers_to_repeat, uphill
from ddl_d2.utils.distributed import any_rank
from ddl_d2.utils.precision import autocast
from ddl_d2.utils.seed import random_state, seed_step

logger = logging.getLogger(__name__)


class TrainingStep(SimpleTrainer):
    """One step: forward (under autocast if asked), backward, check, update.

    Attributes:
        batch: the latest batch, mapper's rows.
        stop_requested: whether this rank would like to stop after the step.
        stop_agreed: whether any rank would; all ranks know the same.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: TrainLoader | Sequence[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        parts: int = 1,
        sam_rho: float = 0.0,
        log_period: int = 1,
        max_iter: int = 0,
        seed: Callable[[], int] | None = None,
        stopped_steps: str | None = None,
        config: str = "",
    ) -> None:
        """Prepare to train `model`, which is on its device and, on several ranks, wrapped for them.

        Args:
            model: returns its losses by name in training mode.
            data_loader: gives batches of mapper's rows, for ever.
            optimizer: of the weights that are trained.
            precision: "float32", "bfloat16" or "float16" (the latter with loss scaling).
            parts: equal parts in which each batch goes through the model, one after the other, before one update: that
                of the whole batch where the model has no batch norms, which see a part (see `whole_batch.py`).
            sam_rho: how far uphill sharpness-aware minimization takes the gradient (see `solver/sam.py`), with twice
                the work a step; 0: at the weights themselves. Not with "float16".
            log_period: the losses of so many steps are brought from the device and gathered from the ranks at once.
            max_iter: the number of steps of the whole training, after the last of which that is done, too.
            seed: gives the run's seed, from which each step's random numbers follow; None leaves them to chance.
            stopped_steps: the folder for steps that are stopped (see `engine/stopped_step.py`); None keeps none.
            config: the run's config as YAML, for those files.

        Raises:
            ConfigError: sharpness-aware minimization in float16.
        """
        super().__init__(model, data_loader, optimizer)
        if sam_rho and precision == "float16":
            raise ConfigError("SOLVER.SAM.ENABLED does not go with SOLVER.AMP.PRECISION float16: use bfloat16")
        self.parts, self.sam_rho = parts, sam_rho
        self.log_period, self.max_iter = log_period, max_iter
        self.metrics = StepMetrics()
        self.seed = seed
        self.device = next(model.parameters()).device
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        self.batch: list[dict[str, Any]] = []
        self.guard = StepGuard(
            model, optimizer, self.scaler, precision=precision, parts=parts, folder=stopped_steps, config=config
        )
        self.stop_requested = self.stop_agreed = False

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            NonFiniteError: something is not finite; the weights are as they were.
            TooManyBadFilesError: too many files could not be read.
        """
        start = time.perf_counter()
        self.batch = batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.seed is not None:
            seed_step(self.seed(), self.iter, comm.get_rank())
        losses = self._backward_uphill(batch) if self.sam_rho else self._backward(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)
        # Before the step: clipping has to see the true gradients, and a fused optimizer would unscale them after it.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _backward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute gradients of the batch's losses at the weights as they are; return the losses.

        Raises as `run_step`, on all ranks. Only where the forward pass itself cannot go on with what is not finite, its
        rank raises alone: the others then wait in a reduction for it, and end with it.
        """
        attempt = Attempt(batch, random_state(self.device), self.iter)
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        try:
            with in_parts(batch, self.parts) as parts:
                for number, part in enumerate(parts):
                    for name, loss in self._backward_part(part, last=number == len(parts) - 1).items():
                        losses[name] = losses[name] + loss if name in losses else loss
        except NonFiniteError as error:
            raise self.guard.stop_alone(attempt, error) from error
        non_finite, news, self.stop_agreed = any_rank(
            self.guard.non_finite(torch.stack(list(losses.values())).sum()),
            self._bad_files.has_news,
            self.stop_requested,
        )
        if news:
            self._bad_files.agree()
            self._bad_files.check()
        if non_finite:
            self.metrics.write()  # of the steps before
            raise self.guard.stop(attempt, losses)
        return losses

    def _backward_part(self, part: list[dict[str, Any]], *, last: bool) -> dict[str, Tensor]:
        """Add a part's share of the batch's gradients to those there are; return its share of the losses, detached.

        Only with the `last` part do the ranks average their gradients.
        """
        wait = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if wait else nullcontext():
            with autocast(self.device.type, self.precision):
                losses = {name: loss / self.parts for name, loss in self.model(part).items()}
            # Also of a loss that is not finite: in a distributed backward pass every rank waits for every other.
            self.scaler.scale(sum(losses.values())).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _write_metrics(self, losses: dict[str, Tensor], data_time: float) -> None:
        """Keep a step's losses, and write them with those before where that is due; all ranks come to the same."""
        self.metrics.add(self.iter, losses, data_time)
        done = self.iter + 1
        if done % self.log_period == 0 or done == self.max_iter or self.stop_agreed:
            self.metrics.write()

    @property
    def _bad_files(self) -> BadFiles:
        """What the loader could not read; nothing for a plain list of batches."""
        return getattr(self.data_loader, "bad_files", NO_BAD_FILES)

    def _backward_uphill(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute gradients uphill, for sharpness-aware minimization; return the losses at the weights as they are."""
        with random_numbers_to_repeat(self.device):
            losses = self._backward(batch)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        with uphill(parameters, self.sam_rho), frozen_running_statistics(self.model):
            self._backward(batch)
        return losses

    def request_stop(self) -> None:
        """Ask for a stop at the end of the step; from any thread."""
        self.stop_requested = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides weights and optimizer: loss scale and order of images."""
        own = {"grad_scaler": self.scaler.state_dict(), "data_loader": self.data_loader.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` has given, or from a checkpoint of Detectron2's own trainer."""
        super().load_state_dict(state_dict)
        if "data_loader" in state_dict:
            self.data_loader.load_state_dict(state_dict["data_loader"])
        else:
            logger.warning("The checkpoint, of Detectron2's own trainer, has no order of images: it starts anew")
        # Of a run in another precision it is empty: the loss scale then starts anew.
        if state_dict.get("grad_scaler"):
            self.scaler.load_state_dict(state_dict["grad_scaler"])
