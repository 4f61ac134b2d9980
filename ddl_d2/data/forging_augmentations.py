"""The mapper's `forge` functions of INPUT.AUGMENT: training images that are forged on the way, real or not.

Self-blending, which forges faces of real images, is in `self_blending_mapper`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ddl_d2.config.forgery_options import Range
from ddl_d2.data.mapper import Forge
from ddl_d2.errors import ConfigError
from ddl_d2.forging.rectangles import SIDES, copy_move, inpaint

# (image, generator, sides) -> (forged image, mask of what is new in it)
RectangleForgery = Callable[[np.ndarray, np.random.Generator, Range], tuple[np.ndarray, np.ndarray]]


class RandomlyForge:
    """Forge a rectangle of a share of the training images: what is new is added to the mask, the label becomes fake.

    Of a fake whose mask is not known the new part is known, the rest is still not: `localization_valid` stays False.

    Args:
        how: `copy_move` or `inpaint`.
        probability: how likely an image is forged, in [0, 1].
        sides: of the rectangle, as shares of the image's.
    """

    def __init__(self, how: RectangleForgery, probability: float, sides: Range = SIDES) -> None:
        self.how, self.probability, self.sides = how, probability, sides

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, row: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Forge an image or leave it; see `ddl_d2.data.mapper.Forge`."""
        is_fake = int(row["is_fake"])
        if np.random.uniform() >= self.probability:
            return image, mask, is_fake
        forged, new = self.how(image, random_generator(), self.sides)
        return (forged, mask | new, 1) if new.any() else (image, mask, is_fake)


class ForgeInTurn:
    """Several `forge` functions one after the other; each sees the image, mask and label that the last one left."""

    def __init__(self, forges: Sequence[Forge]) -> None:
        self.forges = tuple(forges)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, row: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Forge an image or leave it; see `ddl_d2.data.mapper.Forge`."""
        is_fake = int(row["is_fake"])
        for forge in self.forges:
            image, mask, is_fake = forge(image, mask, {**row, "is_fake": is_fake})
        return image, mask, is_fake


def build_forge(cfg: CfgNode, first: Forge | None = None) -> Forge | None:
    """Build `first` and then what INPUT.AUGMENT asks for: copy-move, inpainting; None for nothing at all.

    Raises:
        ConfigError: INPUT.AUGMENT.FORGED_SIDE is no range within 0 and 1.
    """
    augment = cfg.INPUT.AUGMENT
    low, high = augment.FORGED_SIDE
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"INPUT.AUGMENT.FORGED_SIDE {[low, high]} is not a range (smallest, largest) within 0 and 1")
    wanted = ((copy_move, augment.COPY_MOVE_PROB), (inpaint, augment.INPAINT_PROB))
    forges = [RandomlyForge(how, probability, (low, high)) for how, probability in wanted if probability > 0]
    if first is None or not forges:
        return ForgeInTurn(forges) if forges else first
    return ForgeInTurn([first, *forges])


def random_generator() -> np.random.Generator:
    """Make a generator seeded from `np.random`, which the loader seeds for each sample."""
    return np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint64))
