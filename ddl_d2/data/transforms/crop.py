"""Augmentations that crop images and their forgery masks.

Images are uint8 RGB H x W x 3; a mask travels as `AugInput.sem_seg`, uint8 H x W with 1 = forged. Every draw comes
from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, NoOpTransform, Transform

from ddl_d2.data.transforms.antialias import resize_window
from ddl_d2.data.transforms.resize import AntialiasedResize, ResizeToFit


class RandomCropKeepingForgery(T.Augmentation):
    """A random crop; of a forged image, one that shows forged pixels and is not filled by a single class.

    A crop larger than the image takes all of it (nothing is padded here). A draw is repeated while it holds no
    forged pixel, or while one class covers `single_category_max_area` of it or more. If no draw passes, the last one
    with forged pixels is taken, or else the last. Images without forged pixels take the first draw.

    Args:
        crop_size: (height, width) in pixels.
        single_category_max_area: a share of the crop in (0, 1].
        retries: draws at most.
    """

    input_args = ("image", "sem_seg")

    def __init__(self, crop_size: tuple[int, int], single_category_max_area: float = 0.75, retries: int = 10) -> None:
        super().__init__()
        self.crop_size = crop_size
        self.single_category_max_area = single_category_max_area
        self.retries = retries

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """Draw the crop of an image, H x W x C, by its mask, H x W."""
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
        """Draw (top, left) of a crop, each from 0 to its last."""
        top = int(np.random.randint(last_top + 1))
        return top, int(np.random.randint(last_left + 1))


class ResizeAndCrop(T.Augmentation):
    """A resize and then a crop, with the draws and the result of the two, but only the crop is computed.

    Args:
        resize: comes first.
        crop: comes second.
    """

    input_args = ("image", "sem_seg")

    def __init__(self, resize: ResizeToFit, crop: RandomCropKeepingForgery) -> None:
        super().__init__()
        self.resize = resize
        self.crop = crop

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """Draw the resize and the crop of an image, H x W x C, by its mask, H x W."""
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
    """A resize followed by a crop; of the resized image only the crop is made.

    Args:
        resize: comes first.
        crop: comes second.
        known: a mask and what `resize` makes of it, where that has been needed before.
    """

    def __init__(
        self, resize: AntialiasedResize, crop: CropTransform, known: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        super().__init__()
        self.resize = resize
        self.crop = crop
        self.known = known

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Resize and crop uint8 H x W x C to the crop's size x C."""
        return resize_window(img, self.resize.target, (self.crop.y0, self.crop.x0, self.crop.h, self.crop.w))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize and crop uint8 (0, 1) H x W to the crop's size."""
        if self.known is not None and self.known[0] is segmentation:
            return self.crop.apply_segmentation(self.known[1])
        return self.crop.apply_segmentation(self.resize.apply_segmentation(segmentation))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Move (x, y) points, N x 2, in pixels."""
        return self.crop.apply_coords(self.resize.apply_coords(coords))
