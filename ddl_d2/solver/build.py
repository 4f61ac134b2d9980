"""Optimizer, gradient clipping and learning-rate schedule from the config."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ExponentialParamScheduler, ParamScheduler, PolynomialDecayParamScheduler
from torch import nn

from ddl_d2.errors import CheckpointError
from ddl_d2.modeling.backbone.timm_backbone import is_position_table
from ddl_d2.solver.schedules import stable_then_tail

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm2d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


GROUPING_KEYS: dict[str, float | None] = {
    "BASE_LR": 1e-4,
    "BACKBONE_MULTIPLIER": 0.1,
    "WEIGHT_DECAY": 0.05,
    "WEIGHT_DECAY_NORM": 0.0,
    "WEIGHT_DECAY_EMBED": 0.0,
    "WEIGHT_DECAY_BIAS": None,
    "WEIGHT_DECAY_SCALE": None,
}
"""The keys of SOLVER that decide the groups of parameters, with their defaults."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW, Adam or SGD over groups of parameters, each with the rate and decay that SOLVER gives it.

    By default they are Mask2Former's: the backbone at a lower rate, no decay on norms and embeddings. With
    `SOLVER.CLIP_GRADIENTS.CLIP_TYPE full_model`, all gradients are clipped together to one norm before each step.
    """
    solver = cfg.SOLVER
    groups = groups_of_config(solver, model)
    if solver.OPTIMIZER in ("ADAMW", "ADAM"):
        kind = torch.optim.AdamW if solver.OPTIMIZER == "ADAMW" else torch.optim.Adam
        # One kernel for all parameters of a group instead of five passes over each.
        optimizer: torch.optim.Optimizer = kind(groups, solver.BASE_LR, betas=tuple(solver.BETAS), fused=True)
    else:
        optimizer = torch.optim.SGD(groups, solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    clip = solver.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        clip_full_model(optimizer, max_norm=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE)
        return optimizer
    return maybe_add_gradient_clipping(cfg, optimizer)


def groups_of_config(solver: CfgNode, model: nn.Module) -> list[dict]:
    """Group the parameters as the rates and decays of a config's SOLVER say."""
    return parameter_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_embed=solver.WEIGHT_DECAY_EMBED,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        weight_decay_scale=solver.WEIGHT_DECAY_SCALE,
        backbone_multiplier=solver.BACKBONE_MULTIPLIER,
    )


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float,
    weight_decay_embed: float,
    weight_decay_bias: float | None = None,
    weight_decay_scale: float | None = None,
    backbone_multiplier: float,
) -> list[dict]:
    """Group the parameters by learning rate and weight decay; each is in exactly one group.

    Args:
        model: its parameters under `backbone.` learn at `lr` times `backbone_multiplier`.
        lr: learning rate of all others.
        weight_decay: of what is not named below.
        weight_decay_norm: of normalization layers.
        weight_decay_embed: of embeddings, relative-position tables and absolute position embeddings.
        weight_decay_bias: of the biases of all other layers; None: `weight_decay`.
        weight_decay_scale: of learned factors, the other parameters of one dimension or none, such as the layer scale
            of ConvNeXt; None: `weight_decay`.
        backbone_multiplier: see `model`.

    Returns:
        the optimizer's groups: `params`, `lr`, `weight_decay`.
    """
    members = defaultdict(list)
    for module, name, parameter in _own_parameters(model):
        decay = weight_decay
        if isinstance(module, _NORMS):
            decay = weight_decay_norm
        elif isinstance(module, nn.Embedding) or is_position_table(name):
            decay = weight_decay_embed
        elif name.endswith("bias"):
            decay = weight_decay if weight_decay_bias is None else weight_decay_bias
        elif parameter.dim() <= 1:
            decay = weight_decay if weight_decay_scale is None else weight_decay_scale
        members[lr * (backbone_multiplier if name.startswith("backbone.") else 1.0), decay].append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in members.items()]


def _own_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield module, f"{prefix}.{name}".removeprefix("module."), parameter


def regrouped_state(
    state: dict[str, Any], optimizer: torch.optim.Optimizer, saved_groups: Sequence[dict] | None
) -> dict[str, Any]:
    """Make an optimizer's saved state one of `optimizer`, with the learning rates and decays that this one has.

    What a parameter remembers (momentum, variance) is kept. Where other rates or decays made other groups, the
    parameters stand in another order.

    Args:
        state: the saved `state_dict`.
        optimizer: of the same kind over the same parameters.
        saved_groups: the groups that the saved optimizer had, of the same parameters; None: as those of `optimizer`.

    Raises:
        CheckpointError: the state is of other parameters.
    """
    own = [id(p) for group in optimizer.param_groups for p in group["params"]]
    saved = own if saved_groups is None else [id(p) for group in saved_groups for p in group["params"]]
    sizes = [len(group["params"]) for group in (optimizer.param_groups if saved_groups is None else saved_groups)]
    if [len(group["params"]) for group in state["param_groups"]] != sizes or set(saved) != set(own):
        raise CheckpointError(
            "the optimizer's state does not fit: its groups of parameters are not those of this config. Start a new "
            "run in another OUTPUT_DIR, with this run's weights as MODEL.WEIGHTS"
        )
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    place = {parameter: number for number, parameter in enumerate(own)}
    moved = {number: place[parameter] for number, parameter in zip(numbers, saved, strict=True)}
    kept = {moved[number]: value for number, value in state["state"].items()}
    return {"state": kept, "param_groups": optimizer.state_dict()["param_groups"]}


def restart_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Give a schedule that was loaded, and its optimizer, the base rates of this run and the rates of its step."""
    groups = scheduler.optimizer.param_groups
    scheduler.base_lrs = [group["initial_lr"] for group in groups]
    for group, rate in zip(groups, scheduler.get_lr(), strict=True):
        group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in groups]


def clip_full_model(optimizer: torch.optim.Optimizer, *, max_norm: float, norm_type: float) -> None:
    """Clip the norm over all gradients before each step, after AMP's unscaling."""

    def clip(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the schedule that SOLVER.LR_SCHEDULER_NAME names, one of these or of Detectron2's own.

    With t from 0 to 1 over the training, after a warm-up: `WarmupPolyLR` is base · (1 - t)^power; `WarmupLinearTailLR`
    is base, and from t = TAIL_START on falls linearly to 0 (with 0.75 the schedule of self-blended images, Shiohara and
    Yamasaki, CVPR 2022); `WarmupStableDecayLR` falls by TAIL_SHAPE to BASE_LR_END (MiniCPM, arXiv 2404.06395);
    `WarmupExponentialLR` falls by the same factor each step, from base to BASE_LR_END.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupPolyLR":
        decay: ParamScheduler = PolynomialDecayParamScheduler(1.0, solver.POLY_LR_POWER)
    elif solver.LR_SCHEDULER_NAME == "WarmupLinearTailLR":
        decay = stable_then_tail(solver.TAIL_START)
    elif solver.LR_SCHEDULER_NAME == "WarmupStableDecayLR":
        decay = stable_then_tail(solver.TAIL_START, solver.TAIL_SHAPE, solver.BASE_LR_END / solver.BASE_LR)
    elif solver.LR_SCHEDULER_NAME == "WarmupExponentialLR":
        decay = ExponentialParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    else:
        return build_detectron2_lr_scheduler(cfg, optimizer)
    schedule = WarmupParamScheduler(
        decay, solver.WARMUP_FACTOR, min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0), solver.WARMUP_METHOD
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)
