"""Running a training step that was stopped once more, to see where its numbers stop being finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ddl_d2.checkpoint.loading import build_untrained_model
from ddl_d2.config.load import config_from_text
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.errors import CheckpointError, ConfigError, NonFiniteError
from ddl_d2.modeling.whole_batch import in_parts
from ddl_d2.utils.precision import autocast
from ddl_d2.utils.seed import set_random_state


@dataclass
class Replay:
    """What came of a step the second time.

    Attributes:
        losses: of the batch, by name; none where the forward pass could not go on.
        refused: why it could not; "" where it could.
        alone: for each image its name, and the losses of it by itself or why it cannot be run so.
        weights: the names of saved weights that are not finite.
        module: the first module whose output is not finite, as they were computed; "": none.
        parameter: the first parameter whose gradient is not finite, likewise.
        same_numbers: whether the same random numbers were drawn.
    """

    losses: dict[str, float] = field(default_factory=dict)
    refused: str = ""
    alone: list[tuple[str, dict[str, float] | str]] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    module: str = ""
    parameter: str = ""
    same_numbers: bool = True

    @property
    def reproduced(self) -> bool:
        """Whether anything that stops a training is not finite again."""
        finite = all(torch.isfinite(torch.tensor(loss)) for loss in self.losses.values())
        return bool(self.refused or self.weights or self.parameter or not finite)


def replay(step: StoppedStep, *, device: str, precision: str) -> Replay:
    """Run the forward and the backward pass of a stopped step again.

    On one rank: losses that are normalized over the ranks may differ by a factor.

    Args:
        step: see `StoppedStep.load`.
        device: "cpu" or "cuda".
        precision: one of `utils.precision.PRECISIONS`.

    Raises:
        ConfigError: the step's config is not of this version.
        CheckpointError: its weights are not.
    """
    model = _model(step, device).train()
    result = Replay(weights=[name for name, value in step.model.items() if not _finite(value)])
    with _watching_modules(model) as first:
        try:
            result.parameter = _first_gradient(model, _totals(model, step, precision, result))
        except NonFiniteError as error:
            result.losses = {}
            result.refused = f"{error.what} ({', '.join(error.image_ids)})"
        result.module = next(iter(first), "")
    for image_id, row in zip(step.image_ids, step.batch, strict=True):
        result.alone.append((image_id, _alone(model, step, row, precision)))
    return result


def _model(step: StoppedStep, device: str) -> nn.Module:
    try:
        cfg = config_from_text(step.config)
    except ConfigError as error:
        raise ConfigError(f"the config of the step: {error}") from error
    cfg.MODEL.DEVICE = device
    model = build_untrained_model(cfg)
    try:
        model.load_state_dict(step.model)
    except RuntimeError as error:
        raise CheckpointError(f"the weights of the step: {' '.join(str(error).split())[:400]}") from error
    return model


def _totals(model: nn.Module, step: StoppedStep, precision: str, result: Replay) -> Iterator[Tensor]:
    """Run the batch in the parts that it went through in; yield the share of each in the total loss."""
    device = next(model.parameters()).device
    result.same_numbers = set_random_state(step.random_state, device)
    with in_parts(step.batch, step.parts) as parts:
        for part in parts:
            with autocast(device.type, precision):
                losses = {name: loss / step.parts for name, loss in model(part).items()}
            for name, loss in losses.items():
                result.losses[name] = result.losses.get(name, 0.0) + float(loss.detach())
            yield sum(losses.values(), torch.zeros(()))


@torch.no_grad()
def _alone(model: nn.Module, step: StoppedStep, row: dict[str, Any], precision: str) -> dict[str, float] | str:
    device = next(model.parameters()).device
    set_random_state(step.random_state, device)
    try:
        with autocast(device.type, precision):
            return {name: float(loss) for name, loss in model([row]).items()}
    except NonFiniteError as error:
        return f"{error.what} is not finite"
    except ValueError as error:  # a batch norm with a single value
        return f"cannot be run alone: {str(error).split(chr(10))[0]}"


@contextmanager
def _watching_modules(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of modules whose output is not finite, in the order of their outputs."""
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        bad = next((t for t in _tensors(output) if not _finite(t)), None)
        if bad is not None:
            found.append(f"{name or 'the model'} ({type(module).__name__}): {_counts(bad)}")

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in model.named_modules()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _first_gradient(model: nn.Module, totals: Iterable[Tensor]) -> str:
    """Run the backward passes of losses; return the parameter that first got a gradient that is not finite, or ""."""
    found: list[str] = []

    def look(parameter: nn.Parameter, name: str) -> None:
        if parameter.grad is not None and not _finite(parameter.grad):
            found.append(f"{name}: {_counts(parameter.grad)}")

    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: look(p, name))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    for total in totals:
        total.backward()
    for handle in handles:
        handle.remove()
    if found:
        return found[0]
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return "" if _finite(norm) else "all together: each is finite, their norm is not"


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a module's output, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _tensors(list(vars(value).values()))


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _counts(tensor: Tensor) -> str:
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return f"{nan} NaN and {infinite} infinite of {tensor.numel()} values"
