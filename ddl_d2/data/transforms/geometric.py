"""Augmentations that flip, turn and shift images and their forgery masks.

Images are uint8 RGB H x W x 3; a mask travels as `AugInput.sem_seg`, uint8 H x W with 1 = forged. Every draw comes
from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform

from ddl_d2.data.transforms.photometric import SometimesAugmentation


class RandomFlip(T.RandomFlip):
    """Detectron2's flip, but the result is a new array: later steps are slow on NumPy's reversed views."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw whether an image, H x W x C, is flipped."""
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
        """Draw the number of quarters."""
        turns = int(np.random.randint(4))
        return QuarterTurns(turns, image.shape[:2]) if turns else NoOpTransform()


class QuarterTurns(Transform):
    """Turn an image by quarters, counterclockwise.

    Args:
        turns: number of quarters.
        size: (height, width) of the image.
    """

    _WAYS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)

    def __init__(self, turns: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.turns = turns % 4
        self.size = size

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn H x W (x C); the result is W x H (x C) for an odd number of quarters."""
        way = self._WAYS[self.turns]
        return img if way is None else cv2.rotate(img, way)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Move (x, y) points, N x 2, in pixels."""
        (height, width), (x, y) = self.size, (coords[:, 0], coords[:, 1])
        turned = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))[self.turns]
        return np.stack(turned, axis=1)

    def inverse(self) -> Transform:
        """Return the turn back."""
        return QuarterTurns(-self.turns, self.size if self.turns % 2 == 0 else self.size[::-1])


class RandomShiftScaleRotate(SometimesAugmentation):
    """Scale and turn an image about its middle, then shift it; its size stays, what comes in is black (LFDL's).

    Args:
        prob: how likely the image is moved.
        shift: at most so far, either way, as a share of the width and of the height.
        scale: the factor is 1 +- this, below 1.
        rotate: degrees, either way.

    Raises:
        ValueError: a negative range, or a scale of 1 or more.
    """

    def __init__(self, prob: float, *, shift: float = 0.0625, scale: float = 0.2, rotate: float = 45.0) -> None:
        super().__init__(prob)
        if min(shift, scale, rotate) < 0 or scale >= 1:
            raise ValueError(
                f"shift {shift}, scale {scale} and rotate {rotate} must not be negative, and scale below 1"
            )
        self.shift, self.scale, self.rotate = shift, scale, rotate

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the angle, the factor and the shift."""
        height, width = image.shape[:2]
        angle = np.random.uniform(-self.rotate, self.rotate)
        factor = np.random.uniform(1 - self.scale, 1 + self.scale)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, factor)
        matrix[:, 2] += np.random.uniform(-self.shift, self.shift, size=2) * (width, height)
        return AffineTransform(matrix)


class AffineTransform(Transform):
    """Move the points of an image by a matrix; its size stays, what comes in is black and authentic.

    Bilinear; a mask goes through it as 0/255 and is cut at one half, as in `AntialiasedResize`.

    Args:
        matrix: 2 x 3, (x, y, 1) to (x, y), in pixels from the corner of the image (pixel centers at halves).
    """

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__()
        self.matrix = matrix

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Warp uint8 H x W (x C) to the same shape."""
        centered = self.matrix.copy()  # OpenCV's pixel centers are at whole numbers
        centered[:, 2] += self.matrix[:, :2] @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(img, centered, img.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Warp uint8 (0, 1) H x W to the same shape."""
        if not segmentation.view(np.bool_).any():
            return segmentation
        return (self.apply_image(segmentation * np.uint8(255)) >= 128).view(np.uint8)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Move (x, y) points, N x 2, in pixels."""
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]

    def inverse(self) -> Transform:
        """Return the move back."""
        return AffineTransform(cv2.invertAffineTransform(self.matrix))
