"""Checks of values and combinations that would only fail later."""

from __future__ import annotations

from detectron2.config import CfgNode

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
}
"""Key -> the values it may have."""


def check_config(cfg: CfgNode) -> None:
    """Refuse values and combinations that would only fail later.

    Raises:
        ConfigError: names the key.
    """
    for key, allowed in CHOICES.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        if node not in allowed:
            raise ConfigError(f"{key} is '{node}': it must be one of {', '.join(map(str, allowed))}")
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
