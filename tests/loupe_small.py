"""A Loupe small enough for unit tests: EfficientNet-Lite0 without weights, images of 64 × 64, 8 × 8 tokens."""

from __future__ import annotations

SMALL_LOUPE = [
    "MODEL.META_ARCHITECTURE", "Loupe",
    "MODEL.LOUPE.INPUT_SIZE", "64",
    "MODEL.LOUPE.MAP_SIZE", "64",
    "MODEL.DETECTION.IN_FEATURES", "['res3', 'res4']",
    "INPUT.MIN_SIZE_TRAIN", "(0,)",
    "INPUT.MIN_SIZE_TEST", "0",
    "INPUT.SCALE_RANGE", "[1.0, 1.0]",
    "INPUT.CROP.ENABLED", "False",
    "INPUT.RANDOM_FLIP", "none",
    "INPUT.COLOR_AUG_SSD", "False",
    "INPUT.JPEG_PROB", "0.0",
    "SOLVER.FREEZE", "['backbone']",
    "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.WARMUP_ITERS", "0",
    "SOLVER.AMP.ENABLED", "False",
    "SOLVER.MAX_ITER", "4",
    "SOLVER.CHECKPOINT_PERIOD", "2",
    "TEST.EVAL_PERIOD", "0",
    "SEED", "3",
]  # fmt: skip
"""Config keys, on top of the quickstart's config and `TINY`."""

CLASSIFIER_ONLY = ["MODEL.LOCALIZATION.ENABLED", "False"]
"""Stage 1."""
