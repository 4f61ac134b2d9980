"""Stopping before numbers that are not finite reach the weights: on all ranks alike, and with the images named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.errors import NonFiniteError

SMALLEST_LOSS_SCALE = 2.0**-14
"""Below it, a gradient that overflows is not finite itself.

float16's loss scale starts at 65536 and is halved at each step whose gradient overflows: here, thirty have in a row.
"""

_OVERFLOW = "the norm of all gradients"
"""What is said where each gradient is finite and the sum of their squares is not."""


class Attempt(NamedTuple):
    """What a forward pass starts from: mapper's rows, `utils.seed.random_state`, and the number of the step."""

    batch: list[dict[str, Any]]
    random_state: dict[str, Tensor]
    iteration: int


class Causes(NamedTuple):
    """What is not finite on one rank: `losses` by name, `others` in words; and the images it was computed from."""

    rank: int
    losses: list[str]
    others: list[str]
    image_ids: list[str]


class StepGuard:
    """Looks at what a training step has computed, before the optimizer uses it.

    Checked are the total loss, the norm of all gradients together (with float16's loss scaling, to which single
    overflows belong, the loss scale) and the running statistics of batch norms, which no loss shows but every
    evaluation uses.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        precision: str = "float32",
        parts: int = 1,
        folder: str | None = None,
        config: str = "",
    ) -> None:
        """Look at what `optimizer` changes of `model`, and at the model's running statistics.

        Args:
            model: may be wrapped for several ranks.
            optimizer: of the weights that are trained.
            scaler: scales the loss, if it is enabled.
            precision: one of `utils.precision.PRECISIONS`, for the files of stopped steps.
            parts: in which a batch goes through the model, likewise.
            folder: where these go; None keeps none.
            config: the run's, as YAML, likewise.
        """
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.scaler, self.precision, self.parts = scaler, precision, parts
        self.folder, self.config = folder, config
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.parameters = {name: p for name, p in self.model.named_parameters() if id(p) in trained}
        self.statistics = {
            name: buffer
            for name, buffer in self.model.named_buffers()
            if name.endswith(("running_mean", "running_var")) and buffer.is_floating_point()
        }

    def non_finite(self, total: Tensor) -> Tensor:
        """Tell whether anything is not finite, after the backward pass of the loss `total`.

        Returns:
            A bool tensor of one element, on the device of the loss, which nobody has waited for yet.
        """
        numbers = [total.detach().float().reshape(())]
        if not self.scaler.is_enabled():
            numbers.append(_norm([p.grad for p in self.parameters.values() if p.grad is not None], total.device))
        elif self._at_the_smallest_scale():
            numbers.append(torch.full_like(numbers[0], torch.nan))
        numbers.append(_norm(list(self.statistics.values()), total.device))
        return ~torch.isfinite(torch.stack(numbers)).all()

    def stop(self, attempt: Attempt, losses: Mapping[str, Tensor]) -> NonFiniteError:
        """Return the error to raise on each rank, once all know that something is not finite; all have to call this.

        Gradients are averaged over the ranks: where a loss is not finite on one, the gradients are not finite on any.
        The images, and the files, are those of the ranks with such a loss; without any, those of the ranks with such
        gradients or statistics.
        """
        every = comm.all_gather(self._causes(attempt, losses))
        guilty = [c for c in every if c.losses] or [c for c in every if c.others] or every
        note = ""
        for causes in guilty:
            if causes.rank == comm.get_rank():
                note = self._keep(attempt, causes.losses or causes.others or [_OVERFLOW], losses)
        # Whichever rank's message is shown, it says where the files are.
        notes = comm.all_gather(note)
        said = [f"{', '.join(c.losses)}{_on_rank(c.rank)}" for c in guilty if c.losses]
        said = said or list(dict.fromkeys(cause for c in guilty for cause in c.others)) or [_OVERFLOW]
        ids = [image_id for c in guilty for image_id in c.image_ids]
        return NonFiniteError(f"{'; '.join(said)} at iteration {attempt.iteration}", ids, "".join(notes))

    def stop_alone(self, attempt: Attempt, error: NonFiniteError) -> NonFiniteError:
        """Return the error to raise where the forward pass of this rank could not go on; others may now wait for it."""
        note = self._keep(attempt, [error.what], {})
        what = f"{error.what}{_on_rank(comm.get_rank())} at iteration {attempt.iteration}"
        return NonFiniteError(what, error.image_ids, note)

    def _causes(self, attempt: Attempt, losses: Mapping[str, Tensor]) -> Causes:
        gradients = [name for name, p in self.parameters.items() if p.grad is not None and not _finite(p.grad)]
        statistics = [name for name, buffer in self.statistics.items() if not _finite(buffer)]
        others = [_several("the gradient of", gradients)] if gradients else []
        others += [_several("the running statistic", statistics)] if statistics else []
        return Causes(
            rank=comm.get_rank(),
            losses=[name for name, loss in losses.items() if not _finite(loss)],
            others=others,
            image_ids=image_ids(attempt.batch),
        )

    def _keep(self, attempt: Attempt, what: list[str], losses: Mapping[str, Tensor]) -> str:
        """Write the step to a file; return what to say about it."""
        if self.folder is None:
            return ""
        path = StoppedStep(
            iteration=attempt.iteration,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            what=what,
            image_ids=image_ids(attempt.batch),
            batch=attempt.batch,
            losses={name: float(loss.detach()) for name, loss in losses.items()},
            model={name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            random_state=attempt.random_state,
            config=self.config,
            precision=self.precision,
            parts=self.parts,
        ).write(self.folder)
        return f". {path} keeps the step: `ddl-d2 replay` runs it again" if path else ". The step could not be kept"

    def _at_the_smallest_scale(self) -> bool:
        return self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_LOSS_SCALE


def image_ids(batch: list[dict[str, Any]]) -> list[str]:
    """Return the names of a batch's rows."""
    return [str(row.get("image_id", row.get("file_name"))) for row in batch]


def _on_rank(rank: int) -> str:
    return f" on rank {rank}" if comm.get_world_size() > 1 else ""


def _norm(tensors: list[Tensor], device: torch.device) -> Tensor:
    norm = nn.utils.get_total_norm(tensors) if tensors else torch.zeros((), device=device)
    return norm.to(torch.float32).reshape(())


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _several(what: str, names: list[str]) -> str:
    return f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
