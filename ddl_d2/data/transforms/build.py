"""The augmentations of a config, for training and testing."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ddl_d2.data.transforms.crop import RandomCropKeepingForgery, ResizeAndCrop
from ddl_d2.data.transforms.degradations import JpegRecompress, RandomBlur, RandomDelivery, RandomGray, RandomNoise
from ddl_d2.data.transforms.geometric import RandomFlip, RandomQuarterTurns, RandomShiftScaleRotate
from ddl_d2.data.transforms.photometric import PhotometricDistortion, RandomColor, SometimesAugmentation
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.errors import ConfigError


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Build the augmentations that `cfg.INPUT` asks for, in order; for testing, only fitting.

    First what moves pixels: fit and scale, crop, flips, quarter turns, shift-scale-rotate. Then what happens to an
    image on its way through a camera and a network: colors, noise, blur, JPEG. With INPUT.AUGMENT.BEFORE_RESIZE these
    come first, at the size of the image (or its face crop); shrinking it then takes most of them away. INPUT.AUGMENT's
    deliveries always come before all else: they happen to files.

    Raises:
        ConfigError: a value of INPUT.AUGMENT is out of its limits, it would train on a corruption that is kept for
            testing, or INPUT.CROP.TYPE is not "absolute".
    """
    inputs = cfg.INPUT
    if not is_train:
        return [ResizeToFit(inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST)]
    low, high = inputs.SCALE_RANGE
    resize = ResizeToFit(inputs.MIN_SIZE_TRAIN, inputs.MAX_SIZE_TRAIN, (low, high))
    steps: list[T.Augmentation] = [resize]
    if inputs.CROP.ENABLED:
        if inputs.CROP.TYPE != "absolute":
            raise ConfigError(f'INPUT.CROP.TYPE must be "absolute" (sizes in pixels), not {inputs.CROP.TYPE!r}')
        height, width = inputs.CROP.SIZE
        crop = RandomCropKeepingForgery((height, width), inputs.CROP.SINGLE_CATEGORY_MAX_AREA, inputs.CROP.RETRIES)
        steps = [ResizeAndCrop(resize, crop)]
    if inputs.RANDOM_FLIP != "none":
        vertical = inputs.RANDOM_FLIP == "vertical"
        steps.append(RandomFlip(horizontal=not vertical, vertical=vertical))
    delivery, moving, colors, degrading = _augment_steps(inputs.AUGMENT)
    steps += moving
    if inputs.COLOR_AUG_SSD:
        steps.append(PhotometricDistortion())
    degrading = colors + degrading
    if inputs.JPEG_PROB > 0:
        degrading.append(JpegRecompress(inputs.JPEG_PROB, tuple(inputs.JPEG_QUALITY)))
    return delivery + (degrading + steps if inputs.AUGMENT.BEFORE_RESIZE else steps + degrading)


def build_views(cfg: CfgNode) -> list[T.Augmentation]:
    """Build what makes further views of an image in testing (TEST.AUG): one fitting for each of its sizes."""
    views = cfg.TEST.AUG
    return [ResizeToFit(size, views.MAX_SIZE) for size in views.MIN_SIZES] if views.ENABLED else []


def build_spread_views(cfg: CfgNode) -> list[T.Augmentation]:
    """Build what makes views that only say how far views differ (TEST.UNCERTAINTY): one fitting for each scale.

    Raises:
        ConfigError: a scale is not positive.
    """
    wanted, inputs = cfg.TEST.UNCERTAINTY, cfg.INPUT
    if not wanted.ENABLED:
        return []
    if any(scale <= 0 for scale in wanted.SCALES):
        raise ConfigError(f"TEST.UNCERTAINTY.SCALES {wanted.SCALES}: a scale is above 0")
    return [ResizeToFit(inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST, (scale, scale)) for scale in wanted.SCALES]


def _augment_steps(augment: CfgNode) -> list[list[T.Augmentation]]:
    """INPUT.AUGMENT's: deliveries, what moves pixels, colors, what degrades; without those of probability 0."""
    for key, value in augment.items():
        if key.endswith("_PROB") and not 0 <= value <= 1:
            raise ConfigError(f"INPUT.AUGMENT.{key} is {value}: a probability lies within 0 and 1")
    try:
        groups: list[list[SometimesAugmentation | RandomFlip]] = [
            [RandomDelivery(augment.DELIVERY_PROB, augment.DELIVERIES, augment.DELIVERY_LEVELS)],
            [
                RandomFlip(augment.VERTICAL_FLIP_PROB, horizontal=False, vertical=True),
                RandomQuarterTurns(augment.QUARTER_TURNS_PROB),
                RandomShiftScaleRotate(
                    augment.AFFINE_PROB, shift=augment.SHIFT, scale=augment.SCALE, rotate=augment.ROTATE
                ),
            ],
            [
                RandomGray(augment.GRAY_PROB),
                RandomColor(
                    augment.COLOR_PROB,
                    kinds=augment.COLOR_KINDS,
                    brightness=augment.BRIGHTNESS,
                    contrast=augment.CONTRAST,
                    pca=augment.PCA,
                    hsv=augment.HSV,
                ),
            ],
            [
                RandomNoise(augment.NOISE_PROB, augment.NOISE_VARIANCE),
                RandomBlur(
                    augment.BLUR_PROB,
                    kinds=augment.BLUR_KINDS,
                    kernel=augment.BLUR_KERNEL,
                    motion=augment.MOTION_KERNEL,
                ),
            ],
        ]
    except ValueError as error:
        raise ConfigError(f"INPUT.AUGMENT: {error}") from error
    return [[step for step in group if step.prob > 0] for group in groups]
