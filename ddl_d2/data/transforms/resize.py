"""Augmentations that resize images and their forgery masks.

Images are uint8 RGB H x W x 3; a mask travels as `AugInput.sem_seg`, uint8 H x W with 1 = forged. Every draw comes
from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from ddl_d2.data.transforms.antialias import resize_pixels, resize_plane


class AntialiasedResize(Transform):
    """Resize with the antialiased bilinear kernel, equal to Pillow's to one gray level.

    A mask goes through the same kernel as 0/255 and is cut at one half. Nearest-neighbor would pick single source
    pixels, which when shrinking moves the border by up to half a source step and breaks thin regions; the area share
    keeps image and mask on the same geometry.

    Args:
        source: (height, width) before, pixels.
        target: (height, width) after, pixels.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        self.source = source
        self.target = target

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Resize uint8 H x W x C to uint8 height x width x C."""
        return img if img.shape[:2] == self.target else resize_pixels(img, self.target)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize uint8 (0, 1) H x W to uint8 (0, 1) height x width."""
        if segmentation.shape == self.target:
            return segmentation
        if not segmentation.view(np.bool_).any():  # four times as fast as on numbers
            return np.zeros(self.target, dtype=np.uint8)
        return (resize_plane(segmentation * np.uint8(255), self.target) >= 128).view(np.uint8)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Move (x, y) points, N x 2, in pixels."""
        scale = np.array([self.target[1] / self.source[1], self.target[0] / self.source[0]])
        return coords * scale

    def inverse(self) -> Transform:
        """Return the resize back to the source's size."""
        return AntialiasedResize(self.target, self.source)


def fitted_size(height: int, width: int, min_size: int, max_size: int, factor: float = 1.0) -> tuple[int, int]:
    """Fit the shortest edge to `min_size`, unless the longest would pass `max_size`, and multiply both by `factor`.

    Returns:
        (height, width), at least one pixel each.
    """
    scale = factor * min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class ResizeToFit(T.Augmentation):
    """Fit the image into (min_size, max_size), keeping its shape, then scale it by a random factor.

    Args:
        min_size: length of the shortest edge in pixels, or several to choose from; 0 leaves the image as it is.
        max_size: the most the longest edge may be, before the random factor.
        scale_range: the factor is drawn uniformly from here.
    """

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        scale_range: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.min_sizes = (min_size,) if isinstance(min_size, int) else tuple(min_size)
        self.max_size = max_size
        self.scale_range = scale_range

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the resize of an image, H x W x C."""
        height, width = image.shape[:2]
        min_size = self.min_sizes[0] if len(self.min_sizes) == 1 else int(np.random.choice(self.min_sizes))
        if min_size == 0:
            return NoOpTransform()
        low, high = self.scale_range
        factor = np.random.uniform(low, high) if low != high else low
        target = fitted_size(height, width, min_size, self.max_size, factor)
        return NoOpTransform() if target == (height, width) else AntialiasedResize((height, width), target)
