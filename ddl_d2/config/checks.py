"""Checks of values and combinations that would only fail later."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, get_cfg

from ddl_d2.errors import ConfigError
from ddl_d2.utils.precision import PRECISIONS

TILE_SCORES = ("max", "mean", "top_tiles", "map")
_SMALLEST_TILE = 32


CHOICES: dict[str, tuple[str | int, ...]] = {
    "INPUT.INSTANCES": ("union", "connected_components"),
    "INPUT.CROP.EMPTY_POLICY": ("keep", "relabel"),
    "DATASETS.FAKE_WITHOUT_MASK": ("skip", "full", "score", "error"),
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "ClassBalancedSampler"),
    "SOLVER.OPTIMIZER": ("ADAMW", "ADAM", "SGD"),
    "SOLVER.AMP.PRECISION": ("bfloat16", "float16"),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupPolyLR",
        "WarmupLinearTailLR",
        "WarmupStableDecayLR",
        "WarmupMultiStepLR",
        "WarmupCosineLR",
        "WarmupExponentialLR",
    ),
    "SOLVER.TAIL_SHAPE": ("linear", "cosine", "sqrt"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("full_model", "value", "norm"),
    "TEST.PRECISION": PRECISIONS,
    "TEST.FP32_STRIDE": (0, 32),
    "TEST.VIDEO_SCORE": ("mean", "top_frames", "max"),
    "TEST.EMPTY_SCORE": ("skip", "0", "1"),
    "TEST.IMAGE_SCORE": ("mean", "max", "top_pixels"),
    "INPUT.FORMAT": ("RGB",),
    "MODEL.SWIN_UNET.DIVERSITY": ("features", "printed", "none"),
    "MODEL.MESORCH.LOW_PASS": ("published", "square"),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": (1, 2),
    "MODEL.PLAIN_VIT.POSITIONS": ("mae", "sam"),
    "MODEL.MASK_FORMER.MASK_LOSS": ("bce", "poly_focal"),
    "MODEL.MASK_FORMER.REGION_LOSS": ("dice", "tversky"),
    "MODEL.LOUPE.CONDITION_TRAIN": ("truth", "score"),
    "MODEL.LOUPE.CONDITION_TEST": ("score", "fake", "truth"),
    "MODEL.LOUPE.TOKEN_PRECISION": ("float32", "float16"),
}
"""Key -> the values it may have."""


UNUSED = (
    "DATALOADER.REPEAT_THRESHOLD",
    "DATALOADER.REPEAT_SQRT",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "GLOBAL.HACK",
    "INPUT.MASK_FORMAT",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "MODEL.MASK_ON",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.NUM_DECAYS",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "TEST.EXPECTED_RESULTS",
    "TEST.KEYPOINT_OKS_SIGMAS",
)
"""Detectron2's keys that nothing here reads: they keep their defaults."""

UNUSED_BY_SYSTEM = {
    "LFDL": "MODEL.LFDL.CLASS_WEIGHT, PATCH_WEIGHT and PIXEL_WEIGHT",
    "Mesorch": "nothing: it has one loss",
    "SwinUNet": "MODEL.SWIN_UNET.CLASS_WEIGHT, MAP_WEIGHT and DIVERSITY_WEIGHT",
}
"""System -> what weighs its losses instead of MODEL.DETECTION.LOSS_WEIGHT and MODEL.LOCALIZATION.LOSS_WEIGHT."""


def check_config(cfg: CfgNode) -> None:
    """Refuse values and combinations that would only fail later.

    Raises:
        ConfigError: names the key.
    """
    for key, allowed in CHOICES.items():
        value = value_of(cfg, key)
        if value not in allowed:
            raise ConfigError(f"{key} is '{value}': it must be one of {', '.join(map(str, allowed))}")
    _check_unused(cfg)
    if cfg.TEST.PRECISION == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("TEST.PRECISION float16 needs a GPU: use bfloat16 or float32")
    if cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.PRECISION float16 needs a GPU: use bfloat16, or SOLVER.AMP.ENABLED False")
    _check_sam(cfg.SOLVER)
    if cfg.SOLVER.ACCUMULATION_PARTS > 1 and cfg.MODEL.LFDL.PSEUDO_LABELS.ENABLED:
        raise ConfigError(
            "SOLVER.ACCUMULATION_PARTS does not go with MODEL.LFDL.PSEUDO_LABELS.ENABLED, which compares the images of "
            "a whole batch"
        )
    _check_sizes(cfg)
    tile = cfg.TEST.TILE
    if tile.SIZE:
        check_tiles(size=tile.SIZE, overlap=tile.OVERLAP, score=tile.SCORE, batch_size=tile.BATCH_SIZE)


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a key such as "SOLVER.BASE_LR"."""
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _check_unused(cfg: CfgNode) -> None:
    """Refuse values that would change nothing."""
    defaults = get_cfg()
    for key in UNUSED:
        if value_of(cfg, key) != value_of(defaults, key):
            raise ConfigError(f"{key} is {value_of(cfg, key)!r}, and nothing reads it: leave it out")
    instead = UNUSED_BY_SYSTEM.get(cfg.MODEL.META_ARCHITECTURE)
    for key, default in (("MODEL.DETECTION.LOSS_WEIGHT", 0.1), ("MODEL.LOCALIZATION.LOSS_WEIGHT", 1.0)):
        if instead and value_of(cfg, key) != default:
            system = cfg.MODEL.META_ARCHITECTURE
            raise ConfigError(
                f"{key} is {value_of(cfg, key)}, which {system} does not read: its losses are weighed by {instead}"
            )
    for key in ("SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.WEIGHT_DECAY_SCALE"):
        value = value_of(cfg, key)
        if value is not None and not (isinstance(value, (int, float)) and value >= 0):
            raise ConfigError(f"{key} is {value!r}: it must be a number from 0 up, or None for that of WEIGHT_DECAY")


def _check_sam(solver: CfgNode) -> None:
    if not solver.SAM.ENABLED:
        return
    if solver.SAM.RHO <= 0:
        raise ConfigError(f"SOLVER.SAM.RHO is {solver.SAM.RHO}: it must be positive (or SOLVER.SAM.ENABLED False)")
    if solver.AMP.ENABLED and solver.AMP.PRECISION == "float16":
        raise ConfigError("SOLVER.SAM.ENABLED does not go with SOLVER.AMP.PRECISION float16: use bfloat16")


def _check_sizes(cfg: CfgNode) -> None:
    """Check numbers that would otherwise end a run with an error of arithmetic."""
    crop, (low, high) = cfg.INPUT.CROP, cfg.INPUT.JPEG_QUALITY
    if crop.ENABLED and (len(crop.SIZE) != 2 or min(crop.SIZE) < 1):
        raise ConfigError(f"INPUT.CROP.SIZE is {crop.SIZE}: it must be a height and a width of at least 1 pixel")
    if not cfg.INPUT.MIN_SIZE_TRAIN:
        raise ConfigError("INPUT.MIN_SIZE_TRAIN is empty: it must hold at least one size, such as (512,)")
    if not 1 <= low <= high <= 100:
        raise ConfigError(f"INPUT.JPEG_QUALITY is {[low, high]}: it must be [smallest, largest] within 1 and 100")
    if cfg.TEST.MAX_IMAGES < 0:
        raise ConfigError(f"TEST.MAX_IMAGES is {cfg.TEST.MAX_IMAGES}: it must be 0 (all) or a number of images")
    _check_views(cfg.TEST.AUG)
    if cfg.TEST.BATCH_SIZE < 1:
        raise ConfigError(f"TEST.BATCH_SIZE is {cfg.TEST.BATCH_SIZE}: it must be at least 1")
    if not 0 <= cfg.SOLVER.EMA.DECAY < 1:
        raise ConfigError(f"SOLVER.EMA.DECAY is {cfg.SOLVER.EMA.DECAY}: it must be from 0 up to, but not, 1")


def _check_views(views: CfgNode) -> None:
    if views.ENABLED and not (views.FLIP or len(views.MIN_SIZES)):
        raise ConfigError("TEST.AUG.ENABLED asks for other views of an image: set TEST.AUG.FLIP or MIN_SIZES")
    if any(size < 1 for size in (*views.MIN_SIZES, views.MAX_SIZE)):
        raise ConfigError(
            f"TEST.AUG.MIN_SIZES is {list(views.MIN_SIZES)} and MAX_SIZE {views.MAX_SIZE}: lengths are at least 1 pixel"
        )


def check_tiles(*, size: int, overlap: float, score: str, batch_size: int) -> None:
    """Check the arguments of `OnTiles`.

    Raises:
        ConfigError: an impossible size, overlap or batch size, or an unknown score; names the key.
    """
    if size < _SMALLEST_TILE:
        raise ConfigError(f"TEST.TILE.SIZE is {size}: it must be 0 (no tiles) or at least {_SMALLEST_TILE}")
    if batch_size < 1:
        raise ConfigError(f"TEST.TILE.BATCH_SIZE is {batch_size}: it must be at least 1")
    if not 0 <= overlap <= 0.5:
        raise ConfigError(f"TEST.TILE.OVERLAP is {overlap:g}: it is a share of a tile's side, from 0 to 0.5")
    if score not in TILE_SCORES:
        raise ConfigError(f"TEST.TILE.SCORE is '{score}': it must be one of {', '.join(TILE_SCORES)}")
