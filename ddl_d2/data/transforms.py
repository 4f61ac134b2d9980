"""Augmentations of pictures and their forgery masks, as Detectron2 `T.Augmentation`s.

Pictures are uint8 RGB H x W x 3; a mask travels as `AugInput.sem_seg`, uint8 H x W with 1 = forged. Every draw comes
from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)

from ddl_d2.data.antialias import resize_pixels, resize_plane, resize_window


class AntialiasedResize(Transform):
    """Resize to `height` x `width` with the antialiased bilinear kernel, equal to Pillow's to one grey level.

    A mask goes through the same kernel as 0/255 and is cut at one half. Nearest-neighbour would pick single source
    pixels, which when shrinking moves the border by up to half a source step and breaks thin regions; the area share
    keeps picture and mask on the same geometry.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        """`source` and `target` are (height, width) in pixels."""
        super().__init__()
        self.source = source
        self.target = target

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 H x W x C to uint8 height x width x C."""
        return img if img.shape[:2] == self.target else resize_pixels(img, self.target)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """uint8 (0, 1) H x W to uint8 (0, 1) height x width."""
        if segmentation.shape == self.target:
            return segmentation
        if not segmentation.view(np.bool_).any():  # four times as fast as on numbers
            return np.zeros(self.target, dtype=np.uint8)
        return (resize_plane(segmentation * np.uint8(255), self.target) >= 128).view(np.uint8)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(x, y) points, N x 2, in pixels."""
        scale = np.array([self.target[1] / self.source[1], self.target[0] / self.source[0]])
        return coords * scale

    def inverse(self) -> Transform:
        return AntialiasedResize(self.target, self.source)


def fitted_size(height: int, width: int, min_size: int, max_size: int, factor: float = 1.0) -> tuple[int, int]:
    """(height, width) after fitting the shortest edge to `min_size` unless the longest would pass `max_size`.

    Whichever limit binds; then both edges are multiplied by `factor`. Never below one pixel.
    """
    scale = factor * min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class ResizeToFit(T.Augmentation):
    """Fit the picture into (min_size, max_size), keeping its shape, then scale it by a random factor."""

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        scale_range: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """
        Args:
            min_size: length of the shortest edge in pixels, or several to choose from.
            max_size: the most the longest edge may be, before the random factor.
            scale_range: the factor is drawn uniformly from here.
        """
        super().__init__()
        self.min_sizes = (min_size,) if isinstance(min_size, int) else tuple(min_size)
        self.max_size = max_size
        self.scale_range = scale_range

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        min_size = self.min_sizes[0] if len(self.min_sizes) == 1 else int(np.random.choice(self.min_sizes))
        low, high = self.scale_range
        factor = np.random.uniform(low, high) if low != high else low
        target = fitted_size(height, width, min_size, self.max_size, factor)
        return NoOpTransform() if target == (height, width) else AntialiasedResize((height, width), target)


class RandomCropKeepingForgery(T.Augmentation):
    """A random crop; of a forged picture, one that shows forged pixels and is not filled by a single class.

    A crop larger than the picture takes all of it (nothing is padded here). A draw is repeated while it holds no
    forged pixel, or while one class covers `single_category_max_area` of it or more. If no draw passes, the last one
    with forged pixels is taken, or else the last. Pictures without forged pixels take the first draw.
    """

    input_args = ("image", "sem_seg")

    def __init__(self, crop_size: tuple[int, int], single_category_max_area: float = 0.75, retries: int = 10) -> None:
        """`crop_size` is (height, width) in pixels, `single_category_max_area` a share of the crop in (0, 1]."""
        super().__init__()
        self.crop_size = crop_size
        self.single_category_max_area = single_category_max_area
        self.retries = retries

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_height, crop_width = min(self.crop_size[0], height), min(self.crop_size[1], width)
        whole = (crop_height, crop_width) == (height, width)
        if whole:
            return NoOpTransform()
        draws = max(1, self.retries) if np.count_nonzero(sem_seg) else 1
        kept = (0, 0)
        kept_is_forged = False
        for _ in range(draws):
            top, left = self.draw_corner(height - crop_height, width - crop_width)
            forged = int(np.count_nonzero(sem_seg[top : top + crop_height, left : left + crop_width]))
            share = forged / (crop_height * crop_width)
            if forged or not kept_is_forged:
                kept, kept_is_forged = (top, left), forged > 0
            if forged and max(share, 1 - share) < self.single_category_max_area:
                break
            if forged and self.single_category_max_area >= 1:
                break
        return CropTransform(kept[1], kept[0], crop_width, crop_height, width, height)

    def draw_corner(self, last_top: int, last_left: int) -> tuple[int, int]:
        """(top, left) of a crop, each from 0 to its last."""
        top = int(np.random.randint(last_top + 1))
        return top, int(np.random.randint(last_left + 1))


class ResizeAndCrop(T.Augmentation):
    """A `resize` and then a `crop`, with the draws and the result of the two, but only the crop is computed."""

    input_args = ("image", "sem_seg")

    def __init__(self, resize: ResizeToFit, crop: RandomCropKeepingForgery) -> None:
        super().__init__()
        self.resize = resize
        self.crop = crop

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        resize = self.resize.get_transform(image)
        if isinstance(resize, NoOpTransform):
            return self.crop.get_transform(image, sem_seg)
        resized_mask = resize.apply_segmentation(sem_seg)
        crop = self.crop.get_transform(resized_mask, resized_mask)
        if isinstance(crop, NoOpTransform):
            height, width = resized_mask.shape
            crop = CropTransform(0, 0, width, height, width, height)
        return CroppedResize(resize, crop, (sem_seg, resized_mask))


class CroppedResize(Transform):
    """`resize` followed by `crop`; of the resized picture only the crop is made."""

    def __init__(
        self, resize: AntialiasedResize, crop: CropTransform, known: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """`known` is a mask and what `resize` makes of it, where that has been needed before."""
        super().__init__()
        self.resize = resize
        self.crop = crop
        self.known = known

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 H x W x C to the crop's size x C."""
        return resize_window(img, self.resize.target, (self.crop.y0, self.crop.x0, self.crop.h, self.crop.w))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """uint8 (0, 1) H x W to the crop's size."""
        if self.known is not None and self.known[0] is segmentation:
            return self.crop.apply_segmentation(self.known[1])
        return self.crop.apply_segmentation(self.resize.apply_segmentation(segmentation))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(x, y) points, N x 2, in pixels."""
        return self.crop.apply_coords(self.resize.apply_coords(coords))


class RandomFlip(T.RandomFlip):
    """Detectron2's, with its draws, but the result is a new array: later steps are slow on NumPy's reversed views."""

    def get_transform(self, image: np.ndarray) -> Transform:
        drawn = super().get_transform(image)
        if isinstance(drawn, NoOpTransform):
            return drawn
        return _CopyingHFlip(image.shape[1]) if self.horizontal else _CopyingVFlip(image.shape[0])


class _CopyingHFlip(HFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.flip(img, 1)


class _CopyingVFlip(VFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.flip(img, 0)


class PointwiseColour(Transform):
    """Look-up tables, before, within and after HSV: the whole of an SSD distortion in three passes at most."""

    def __init__(self, before: np.ndarray, hue: np.ndarray, saturation: np.ndarray, after: np.ndarray) -> None:
        """Each is a uint8 table of 256 values; OpenCV's hue runs from 0 to 179."""
        super().__init__()
        self.before, self.hue, self.saturation, self.after = before, hue, saturation, after

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 H x W x 3 RGB to the same."""
        if _is_identity(self.hue[:180]) and _is_identity(self.saturation):
            return _look_up(img, self.after[self.before])
        hue, saturation, value = cv2.split(cv2.cvtColor(_look_up(img, self.before), cv2.COLOR_RGB2HSV))
        hsv = cv2.merge([_look_up(hue, self.hue), _look_up(saturation, self.saturation), value])
        return _look_up(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), self.after)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


class PhotometricDistortion(T.Augmentation):
    """SSD's colour distortion (Liu et al. 2016, section 2.2; the ranges of S1's recipe).

    Brightness +-32, contrast, saturation x0.5..1.5 and hue +-18 (OpenCV's half degrees), each with probability 1/2;
    contrast comes before or after the HSV steps, a coin decides. After each step values are clipped to 0..255 and cut
    to integers, as in Detectron2's `ColorAugSSDTransform`; but every step is a look-up table, and saturation and hue
    share one trip to HSV and back: less is lost to rounding when both are drawn, otherwise the result is the same.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: int = 18,
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def get_transform(self, image: np.ndarray) -> Transform:
        del image
        return self.draw().transform()

    def draw(self) -> DrawnDistortion:
        uniform, coin = np.random.uniform, lambda: np.random.randint(2) == 1
        brightness = uniform(-self.brightness, self.brightness) if coin() else None
        contrast = uniform(*self.contrast) if coin() else None
        contrast_first = coin()
        saturation = uniform(*self.saturation) if coin() else None
        hue = int(np.random.randint(-self.hue, self.hue + 1)) if coin() else None
        return DrawnDistortion(brightness, contrast, contrast_first, saturation, hue)


class DrawnDistortion(NamedTuple):
    """What `PhotometricDistortion` has drawn; None for a step that is left out."""

    brightness: float | None
    contrast: float | None
    contrast_first: bool
    saturation: float | None
    hue: int | None

    def transform(self) -> PointwiseColour:
        """The steps as tables."""
        before = _IDENTITY if self.brightness is None else affine_table(offset=self.brightness)
        contrast = _IDENTITY if self.contrast is None else affine_table(gain=self.contrast)
        saturation = _IDENTITY if self.saturation is None else affine_table(gain=self.saturation)
        hue = ((_IDENTITY.astype(np.int64) + (self.hue or 0)) % 180).astype(np.uint8)
        if self.contrast_first:
            return PointwiseColour(contrast[before], hue, saturation, _IDENTITY)
        return PointwiseColour(before, hue, saturation, contrast)


class JpegRecompress(T.Augmentation):
    """Compress the picture as JPEG and decode it again, with probability `prob` and a quality drawn from a range."""

    def __init__(self, prob: float, quality_range: tuple[int, int]) -> None:
        """`quality_range` is inclusive, within 1..100."""
        super().__init__()
        self.prob = prob
        self.quality_range = quality_range

    def get_transform(self, image: np.ndarray) -> Transform:
        del image
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        low, high = self.quality_range
        return JpegTransform(int(np.random.randint(low, high + 1)))


class JpegTransform(Transform):
    """One JPEG round trip of the picture at `quality` (4:2:0 chroma)."""

    def __init__(self, quality: int) -> None:
        super().__init__()
        self.quality = quality

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 H x W x 3 RGB to the same."""
        bgr = cv2.cvtColor(img, cv2.COLOR_RGB2BGR)
        done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        if not done:
            raise ValueError(f"a picture of shape {img.shape} cannot be written as JPEG (65,500 pixels a side at most)")
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations that `cfg.INPUT` asks for, in order: fit and scale, crop, flip, colour, JPEG; or only fit."""
    inputs = cfg.INPUT
    if not is_train:
        return [ResizeToFit(inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST)]
    low, high = inputs.SCALE_RANGE
    resize = ResizeToFit(inputs.MIN_SIZE_TRAIN, inputs.MAX_SIZE_TRAIN, (low, high))
    steps: list[T.Augmentation] = [resize]
    if inputs.CROP.ENABLED:
        if inputs.CROP.TYPE != "absolute":
            raise ValueError(f'INPUT.CROP.TYPE must be "absolute" (sizes in pixels), not {inputs.CROP.TYPE!r}')
        height, width = inputs.CROP.SIZE
        crop = RandomCropKeepingForgery((height, width), inputs.CROP.SINGLE_CATEGORY_MAX_AREA, inputs.CROP.RETRIES)
        steps = [ResizeAndCrop(resize, crop)]
    if inputs.RANDOM_FLIP != "none":
        vertical = inputs.RANDOM_FLIP == "vertical"
        steps.append(RandomFlip(horizontal=not vertical, vertical=vertical))
    if inputs.COLOR_AUG_SSD:
        steps.append(PhotometricDistortion())
    if inputs.JPEG_PROB > 0:
        steps.append(JpegRecompress(inputs.JPEG_PROB, tuple(inputs.JPEG_QUALITY)))
    return steps


_IDENTITY = np.arange(256, dtype=np.uint8)


def affine_table(gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """uint8 table of `gain * value + offset`, clipped to 0..255 and cut to an integer."""
    values = _IDENTITY.astype(np.float32) * np.float32(gain) + np.float32(offset)
    return np.clip(values, 0, 255).astype(np.uint8)


def _is_identity(table: np.ndarray) -> bool:
    return bool(np.array_equal(table, _IDENTITY[: len(table)]))


def _look_up(img: np.ndarray, table: np.ndarray) -> np.ndarray:
    if _is_identity(table):
        return img
    # OpenCV takes a single-channel plane of 4 x 1 pixels and a scalar for two arrays: only pictures are added to.
    shift = _shift_of(table) if img.ndim == 3 else None
    return cv2.LUT(img, table) if shift is None else cv2.add(img, (shift, shift, shift, 0))


def _shift_of(table: np.ndarray) -> int | None:
    """k if the table is `value + k`, clipped to 0..255: OpenCV adds ten times as fast as it looks up. Else None."""
    shift = int(table[128]) - 128
    shifted = np.clip(_IDENTITY.astype(np.int64) + shift, 0, 255)
    return shift if np.array_equal(table, shifted) else None
