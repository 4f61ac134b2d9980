"""Test-time adaptation: a trained Loupe learns, of the very images to be predicted, what its own classifier says.

Source: the released code of the entry that won the IJCAI 2025 challenge, stage "test" (May 2025). Its segmentor takes
steps on pseudo-labels (`Loupe.pseudo_labels`); backbone and classifier, which make these, stay as they are. Unlike
there, no label of an image is read, the images are those that are predicted, and they are predicted afterwards.
"""

from __future__ import annotations

import math

from detectron2.config import CfgNode

from ddl_d2.data.build import all_rows, build_adaptation_loader
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError

_FROZEN = ["backbone", "classifier"]
_WARM_UP, _TAIL = 0.1, 0.9  # shares of the steps


class AdaptationTrainer(ForgeryTrainer):
    """The trainer of every system on images without labels; takes the config that `adaptation_config` makes."""

    build_train_loader = staticmethod(build_adaptation_loader)


def adaptation_config(cfg: CfgNode) -> CfgNode:
    """Make of a system's config that of its adaptation to the one dataset of DATASETS.TEST, as TEST.ADAPT says.

    AdamW at a rate that rises over the first tenth of the steps and falls as a half cosine over the last; weight decay
    on all but biases (of layers other than norms); gradients clipped to one norm.

    Args:
        cfg: the config that the weights are predicted with.

    Returns:
        a frozen config for `AdaptationTrainer`.

    Raises:
        ConfigError: another system than Loupe, no segmentor, or not one dataset.
    """
    refuse_unadaptable(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    adapt, solver = cfg.TEST.ADAPT, cfg.SOLVER
    adapt.ENABLED = True
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = cfg.DATASETS.TEST, ()
    cfg.TEST.EVAL_PERIOD = cfg.VIS_PERIOD = 0
    cfg.SEED = max(cfg.SEED, 0)
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0
    images = len(all_rows(cfg.DATASETS.TRAIN[0]))
    solver.IMS_PER_BATCH, solver.ACCUMULATION_PARTS = min(adapt.BATCH_SIZE, images), 1
    solver.MAX_ITER = steps = math.ceil(images * adapt.EPOCHS / solver.IMS_PER_BATCH)
    solver.OPTIMIZER, solver.BASE_LR, solver.FREEZE = "ADAMW", adapt.BASE_LR, _FROZEN
    solver.WEIGHT_DECAY = solver.WEIGHT_DECAY_NORM = solver.WEIGHT_DECAY_EMBED = adapt.WEIGHT_DECAY
    solver.WEIGHT_DECAY_SCALE, solver.WEIGHT_DECAY_BIAS = None, 0.0
    solver.LR_SCHEDULER_NAME, solver.TAIL_START, solver.TAIL_SHAPE = "WarmupStableDecayLR", _TAIL, "cosine"
    solver.BASE_LR_END, solver.WARMUP_FACTOR, solver.WARMUP_METHOD = 0.0, 0.0, "linear"
    solver.WARMUP_ITERS = round(_WARM_UP * steps)
    clip = solver.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE = True, "full_model", adapt.CLIP_NORM, 2.0
    solver.EMA.ENABLED = solver.SAM.ENABLED = False
    cfg.freeze()
    return cfg


def refuse_unadaptable(cfg: CfgNode) -> None:
    """Refuse a config whose system has nothing to adapt, or that does not name one dataset to adapt it to.

    Raises:
        ConfigError: says what to do.
    """
    if cfg.MODEL.META_ARCHITECTURE != "Loupe":
        raise ConfigError(
            f"{cfg.MODEL.META_ARCHITECTURE} cannot be adapted: give weights of Loupe, whose classifier makes the labels"
        )
    if not cfg.MODEL.LOCALIZATION.ENABLED:
        raise ConfigError(
            "this Loupe is its classifier (stage 1), and what is adapted is its segmentor: give weights of stage 2 or 3"
        )
    if not cfg.MODEL.LOUPE.PATCH_HEAD:
        raise ConfigError("MODEL.LOUPE.PATCH_HEAD is False: without patches there are no pseudo-labels to adapt to")
    if len(cfg.DATASETS.TEST) != 1:
        raise ConfigError(
            f"DATASETS.TEST names {len(cfg.DATASETS.TEST)} datasets: name the one whose images are to be predicted, or "
            "give a folder with --images"
        )
