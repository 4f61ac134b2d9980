"""Augmentations that take something from an image: its color, sharpness or exactness.

Images are uint8 RGB H x W x 3. Every draw comes from `np.random`, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import Transform

from ddl_d2.data.transforms.corruptions import CORRUPTIONS, LEVELS, check_trainable
from ddl_d2.data.transforms.photometric import AppearanceSteps, SometimesAugmentation


class RandomGray(SometimesAugmentation):
    """The image without its colors: the gray value of each pixel in all three channels."""

    def draw(self, image: np.ndarray) -> Transform:
        """Give the transform to gray; nothing is drawn."""
        del image
        return AppearanceSteps([{"name": "saturation", "factor": 0.0}])


class RandomNoise(SometimesAugmentation):
    """Gaussian noise, different in every pixel and channel.

    Args:
        prob: how likely there is noise.
        variance: drawn evenly from this range, in squared gray levels.

    Raises:
        ValueError: no such range.
    """

    def __init__(self, prob: float, variance: Sequence[float] = (10.0, 60.0)) -> None:
        super().__init__(prob)
        low, high = variance
        if not 0 <= low <= high:
            raise ValueError(f"a variance of noise is a range (smallest, largest) from 0 up, not {list(variance)}")
        self.variance = (low, high)

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the variance, and a seed for the noise."""
        del image
        sigma = float(np.sqrt(np.random.uniform(*self.variance)))
        return AppearanceSteps([{"name": "noise", "sigma": sigma, "seed": int(np.random.randint(2**31))}])


class RandomBlur(SometimesAugmentation):
    """One of several blurs, each as likely.

    - "gaussian": by a kernel of k x k pixels, k odd, with the sigma that OpenCV gives it: 0.15 k + 0.35,
    - "motion": along a line of k pixels in a random direction.

    Args:
        prob: how likely the image is blurred.
        kinds: some of `KINDS`.
        kernel: odd numbers (smallest, largest), pixels: what k of "gaussian" is drawn from.
        motion: likewise, of "motion".

    Raises:
        ValueError: an unknown kind or none, or no such range.
    """

    KINDS = ("gaussian", "motion")

    def __init__(
        self,
        prob: float,
        *,
        kinds: Sequence[str] = KINDS,
        kernel: Sequence[int] = (3, 11),
        motion: Sequence[int] = (3, 7),
    ) -> None:
        super().__init__(prob)
        unknown = [kind for kind in kinds if kind not in self.KINDS]
        if unknown or not kinds:
            raise ValueError(f"blurs are some of {', '.join(self.KINDS)}, not {list(kinds)}")
        for low, high in (kernel, motion):
            if not 1 <= low <= high or low % 2 == 0 or high % 2 == 0:
                raise ValueError(f"a kernel's size is a range of odd numbers (smallest, largest), not {[low, high]}")
        self.kinds = tuple(kinds)
        self.kernels = {"gaussian": tuple(kernel), "motion": tuple(motion)}

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the kind and the kernel's size."""
        del image
        kind = self.kinds[np.random.randint(len(self.kinds))]
        low, high = self.kernels[kind]
        size = 2 * int(np.random.randint(low // 2, high // 2 + 1)) + 1
        if kind == "gaussian":
            return AppearanceSteps([{"name": "blur", "sigma": 0.15 * size + 0.35}])
        return AppearanceSteps([{"name": "motion_blur", "length": size, "angle": float(np.random.uniform(0, 180))}])


class JpegRecompress(SometimesAugmentation):
    """Compress the image as JPEG (4:2:0) and decode it again.

    Args:
        prob: how likely that is.
        quality_range: the quality is drawn from here; both ends are included, within 1..100.
    """

    def __init__(self, prob: float, quality_range: tuple[int, int]) -> None:
        super().__init__(prob)
        self.quality_range = quality_range

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the quality."""
        del image
        low, high = self.quality_range
        return AppearanceSteps([{"name": "jpeg", "quality": int(np.random.randint(low, high + 1))}])


class RandomDelivery(SometimesAugmentation):
    """One of several corruptions at one of several levels, each as likely; a crop takes its mask along.

    Args:
        prob: how likely that is.
        names: of the corruptions, see `corruptions.CORRUPTIONS`.
        levels: (mildest, severest), both included, within 1..5.

    Raises:
        ValueError: no corruption, an unknown one, one that is kept for testing, or no such range.
    """

    def __init__(self, prob: float, names: Sequence[str], levels: Sequence[int] = (1, 5)) -> None:
        super().__init__(prob)
        check_trainable(names)
        low, high = levels
        if not names or not LEVELS[0] <= low <= high <= LEVELS[-1]:
            raise ValueError(
                f"deliveries need names and a range of levels within 1..5, not {list(names)}, {[low, high]}"
            )
        self.names, self.levels = tuple(names), (low, high)

    def draw(self, image: np.ndarray) -> Transform:
        """Draw the corruption, its level, and a seed for what is random in it."""
        corruption = CORRUPTIONS[self.names[np.random.randint(len(self.names))]]
        level = int(np.random.randint(self.levels[0], self.levels[1] + 1))
        rng = np.random.default_rng(int(np.random.randint(2**31)))
        return corruption.transform(level, image.shape[:2], rng)
