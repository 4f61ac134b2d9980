"""Augmentations of images and their forgery masks, as Detectron2 `T.Augmentation`s: those that move pixels, and the
list of all that a config asks for. What changes only the looks is in `photometric` and `degradations`.

Images are uint8 RGB H x W x 3; a mask travels as `AugInput.sem_seg`, uint8 H x W with 1 = forged. Every draw comes
from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)

from ddl_d2.data.transforms.antialias import resize_pixels, resize_plane, resize_window
from ddl_d2.data.transforms.photometric import SometimesAugmentation


class AntialiasedResize(Transform):
    """Resize to `height` x `width` with the antialiased bilinear kernel, equal to Pillow's to one gray level.

    A mask goes through the same kernel as 0/255 and is cut at one half. Nearest-neighbor would pick single source
    pixels, which when shrinking moves the border by up to half a source step and breaks thin regions; the area share
    keeps image and mask on the same geometry.
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
    """Fit the image into (min_size, max_size), keeping its shape, then scale it by a random factor."""

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        scale_range: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Args:
        min_size: length of the shortest edge in pixels, or several to choose from; 0 leaves the image as it is.
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
        if min_size == 0:
            return NoOpTransform()
        low, high = self.scale_range
        factor = np.random.uniform(low, high) if low != high else low
        target = fitted_size(height, width, min_size, self.max_size, factor)
        return NoOpTransform() if target == (height, width) else AntialiasedResize((height, width), target)


class RandomCropKeepingForgery(T.Augmentation):
    """A random crop; of a forged image, one that shows forged pixels and is not filled by a single class.

    A crop larger than the image takes all of it (nothing is padded here). A draw is repeated while it holds no
    forged pixel, or while one class covers `single_category_max_area` of it or more. If no draw passes, the last one
    with forged pixels is taken, or else the last. Images without forged pixels take the first draw.
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
    """`resize` followed by `crop`; of the resized image only the crop is made."""

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


class RandomQuarterTurns(SometimesAugmentation):
    """Turn by none, one, two or three quarters, each as likely."""

    def draw(self, image: np.ndarray) -> Transform:
        turns = int(np.random.randint(4))
        return QuarterTurns(turns, image.shape[:2]) if turns else NoOpTransform()


class QuarterTurns(Transform):
    """Turn an image of `size` (height, width) by `turns` quarters against the clock."""

    _WAYS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)

    def __init__(self, turns: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.turns = turns % 4
        self.size = size

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """H x W (x C) to W x H (x C) or H x W (x C)."""
        way = self._WAYS[self.turns]
        return img if way is None else cv2.rotate(img, way)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(x, y) points, N x 2, in pixels."""
        (height, width), (x, y) = self.size, (coords[:, 0], coords[:, 1])
        turned = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))[self.turns]
        return np.stack(turned, axis=1)

    def inverse(self) -> Transform:
        return QuarterTurns(-self.turns, self.size if self.turns % 2 == 0 else self.size[::-1])


class RandomShiftScaleRotate(SometimesAugmentation):
    """Scale and turn an image about its middle, then shift it; its size stays, what comes in is black (LFDL's)."""

    def __init__(self, prob: float, *, shift: float = 0.0625, scale: float = 0.2, rotate: float = 45.0) -> None:
        """Args:
            prob: how likely the image is moved.
            shift: at most so far, either way, as a share of the width and of the height.
            scale: the factor is 1 +- this, below 1.
            rotate: degrees, either way.

        Raises:
            ValueError: a negative range, or a scale of 1 or more.
        """
        super().__init__(prob)
        if min(shift, scale, rotate) < 0 or scale >= 1:
            raise ValueError(
                f"shift {shift}, scale {scale} and rotate {rotate} must not be negative, and scale below 1"
            )
        self.shift, self.scale, self.rotate = shift, scale, rotate

    def draw(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        angle = np.random.uniform(-self.rotate, self.rotate)
        factor = np.random.uniform(1 - self.scale, 1 + self.scale)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, factor)
        matrix[:, 2] += np.random.uniform(-self.shift, self.shift, size=2) * (width, height)
        return AffineTransform(matrix)


class AffineTransform(Transform):
    """Move the points of an image by a matrix; its size stays, what comes in is black and authentic.

    Bilinear; a mask goes through it as 0/255 and is cut at one half, as in `AntialiasedResize`.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        """`matrix`, 2 x 3: (x, y, 1) to (x, y), in pixels from the corner of the image (pixel centers at halves)."""
        super().__init__()
        self.matrix = matrix

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 H x W (x C) to the same."""
        centerd = self.matrix.copy()  # OpenCV's pixel centers are at whole numbers
        centerd[:, 2] += self.matrix[:, :2] @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(img, centerd, img.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """uint8 (0, 1) H x W to the same."""
        if not segmentation.view(np.bool_).any():
            return segmentation
        return (self.apply_image(segmentation * np.uint8(255)) >= 128).view(np.uint8)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(x, y) points, N x 2, in pixels."""
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]

    def inverse(self) -> Transform:
        return AffineTransform(cv2.invertAffineTransform(self.matrix))
