"""Augmentations that change an image's colors and move nothing.

Images are uint8 RGB H x W x 3. Every draw comes from `np.random`, which the loader seeds for each sample. Changes are
look-up tables and OpenCV's functions: torchvision's v2 functions work on float tensors, and take several times as long.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from ddl_d2.forging.appearance import Step, apply_steps


class PhotometricTransform(Transform):
    """A change of how an image looks: masks and points stay as they are."""

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the mask as it is."""
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the points as they are."""
        return coords

    def inverse(self) -> Transform:
        """Return no change: of what moves, there is nothing to undo."""
        return NoOpTransform()


class AppearanceSteps(PhotometricTransform):
    """Steps of `forging.appearance`, one after the other.

    Args:
        steps: see `apply_steps`.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = steps

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Change uint8 H x W x 3 RGB."""
        return apply_steps(img, self.steps)


class SometimesAugmentation(T.Augmentation):
    """An augmentation that happens with a probability.

    Args:
        prob: how likely the transform is what `draw` gives; else there is none.

    Raises:
        ValueError: `prob` is not in [0, 1].
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise ValueError(f"a probability must lie within 0 and 1, not {prob}")
        self.prob = prob

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw whether an image, H x W x 3, is changed, and how."""
        return self.draw(image) if np.random.uniform() < self.prob else NoOpTransform()

    @abstractmethod
    def draw(self, image: np.ndarray) -> Transform:
        """Draw the transform of an image that is to be changed."""


class PointwiseColor(PhotometricTransform):
    """Look-up tables, before, within and after HSV: the whole of an SSD distortion in three passes at most.

    Each is a uint8 table of 256 values.

    Args:
        before: of the RGB values.
        hue: of OpenCV's hue, which runs from 0 to 179.
        saturation: of HSV's saturation.
        after: of the RGB values, last.
        value: of HSV's value; None leaves it.
    """

    def __init__(
        self,
        before: np.ndarray,
        hue: np.ndarray,
        saturation: np.ndarray,
        after: np.ndarray,
        *,
        value: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.before, self.hue, self.saturation, self.after = before, hue, saturation, after
        self.value = _IDENTITY if value is None else value

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Change uint8 H x W x 3 RGB."""
        if all(map(_is_identity, (self.hue[:180], self.saturation, self.value))):
            return _look_up(img, self.after[self.before])
        hue, saturation, value = cv2.split(cv2.cvtColor(_look_up(img, self.before), cv2.COLOR_RGB2HSV))
        hsv = cv2.merge([_look_up(hue, self.hue), _look_up(saturation, self.saturation), _look_up(value, self.value)])
        return _look_up(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), self.after)


class PhotometricDistortion(T.Augmentation):
    """SSD's color distortion (Liu et al. 2016, section 2.2; the ranges of S1's recipe).

    Brightness +-32, contrast, saturation x0.5..1.5 and hue +-18 (OpenCV's half degrees), each with probability 1/2;
    contrast comes before or after the HSV steps, a coin decides. After each step values are clipped to 0..255 and cut
    to integers, as in Detectron2's `ColorAugSSDTransform`; but every step is a look-up table, and saturation and hue
    share one trip to HSV and back: less is lost to rounding when both are drawn, otherwise the result is the same.

    Args:
        brightness: the offset is drawn from +- this, gray levels.
        contrast: range of the gain.
        saturation: range of the gain.
        hue: the shift is drawn from +- this, half degrees.
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
        """Draw the steps."""
        del image
        return self.draw().transform()

    def draw(self) -> DrawnDistortion:
        """Draw the steps, as numbers."""
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

    def transform(self) -> PointwiseColor:
        """Turn the steps into tables."""
        before = _IDENTITY if self.brightness is None else affine_table(offset=self.brightness)
        contrast = _IDENTITY if self.contrast is None else affine_table(gain=self.contrast)
        saturation = _IDENTITY if self.saturation is None else affine_table(gain=self.saturation)
        hue = ((_IDENTITY.astype(np.int64) + (self.hue or 0)) % 180).astype(np.uint8)
        if self.contrast_first:
            return PointwiseColor(contrast[before], hue, saturation, _IDENTITY)
        return PointwiseColor(before, hue, saturation, contrast)


class RandomColor(SometimesAugmentation):
    """One of several changes of color, each as likely (LFDL's recipe).

    - "brightness_contrast": gain * value + offset, gain 1 +- `contrast`, offset +- `brightness` * 255,
    - "fancy_pca": the same offset for all pixels, along the principal components of the image's colors: for each
      component, its variance (colors in [0, 1]) times a normal number of deviation `pca` (Krizhevsky et al. 2012),
    - "hsv": hue, saturation and value moved by up to +- `hsv`, in OpenCV's units: half degrees, then 0..255.

    Args:
        prob: how likely the colors change.
        kinds: some of `KINDS`.
        brightness: see above.
        contrast: see above, at most 1.
        pca: see above.
        hsv: see above, three numbers.

    Raises:
        ValueError: an unknown kind or none, a negative range, or a contrast above 1.
    """

    KINDS = ("brightness_contrast", "fancy_pca", "hsv")

    def __init__(
        self,
        prob: float,
        *,
        kinds: Sequence[str] = KINDS,
        brightness: float = 0.3,
        contrast: float = 0.3,
        pca: float = 0.1,
        hsv: Sequence[int] = (20, 30, 20),
    ) -> None:
        super().__init__(prob)
        unknown = [kind for kind in kinds if kind not in self.KINDS]
        if unknown or not kinds:
            raise ValueError(f"changes of color are some of {', '.join(self.KINDS)}, not {list(kinds)}")
        if min(brightness, contrast, pca, *hsv) < 0 or contrast > 1 or len(hsv) != 3:
            raise ValueError(
                f"brightness {brightness}, contrast {contrast}, pca {pca} and hsv {list(hsv)} (three numbers) must not "
                "be negative, and contrast at most 1"
            )
        self.kinds = tuple(kinds)
        self.brightness, self.contrast, self.pca, self.hsv = brightness, contrast, pca, tuple(hsv)

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the kind of change and its numbers."""
        kind = self.kinds[np.random.randint(len(self.kinds))]
        if kind == "fancy_pca":
            return AppearanceSteps([{"name": "shift_rgb", "offsets": self._principal_offsets(image)}])
        if kind == "hsv":
            hue, saturation, value = (int(np.random.randint(-most, most + 1)) for most in self.hsv)
            turned = ((_IDENTITY.astype(np.int64) + hue) % 180).astype(np.uint8)
            moved = affine_table(offset=saturation), affine_table(offset=value)
            return PointwiseColor(_IDENTITY, turned, moved[0], _IDENTITY, value=moved[1])
        gain = 1 + np.random.uniform(-self.contrast, self.contrast)
        table = affine_table(gain, 255 * np.random.uniform(-self.brightness, self.brightness))
        return PointwiseColor(table, _IDENTITY, _IDENTITY, _IDENTITY)

    def _principal_offsets(self, image: np.ndarray) -> list[float]:
        """The offset of each channel, gray levels."""
        few = image[:: max(1, image.shape[0] // 128), :: max(1, image.shape[1] // 128)]  # enough to know the colors by
        variances, components = np.linalg.eigh(np.cov(few.reshape(-1, 3).T / 255.0, bias=True))
        return (255 * components @ (variances * np.random.normal(0, self.pca, size=3))).tolist()


_IDENTITY = np.arange(256, dtype=np.uint8)


def affine_table(gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Tabulate `gain * value + offset`, clipped to 0..255 and cut to an integer: uint8, 256."""
    values = _IDENTITY.astype(np.float32) * np.float32(gain) + np.float32(offset)
    return np.clip(values, 0, 255).astype(np.uint8)


def _is_identity(table: np.ndarray) -> bool:
    return bool(np.array_equal(table, _IDENTITY[: len(table)]))


def _look_up(img: np.ndarray, table: np.ndarray) -> np.ndarray:
    if _is_identity(table):
        return img
    # OpenCV takes a single-channel plane of 4 x 1 pixels and a scalar for two arrays: only images are added to.
    shift = _shift_of(table) if img.ndim == 3 else None
    return cv2.LUT(img, table) if shift is None else cv2.add(img, (shift, shift, shift, 0))


def _shift_of(table: np.ndarray) -> int | None:
    """K if the table is `value + k`, clipped to 0..255: OpenCV adds ten times as fast as it looks up. Else None."""
    shift = int(table[128]) - 128
    shifted = np.clip(_IDENTITY.astype(np.int64) + shift, 0, 255)
    return shift if np.array_equal(table, shifted) else None
