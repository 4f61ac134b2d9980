"""Ways in which an image reaches people or loses quality: named, at five levels each.

A corruption of an image is a transform: `apply_image` corrupts the image, `apply_segmentation` moves its forgery mask
along, and the inverse's `apply_segmentation` brings a map of the corrupted image back. The same corruptions are what
`ddl-d2 robustness` and `ddl-d2 predict --fragility` test with and, but for `TEST_ONLY`, what INPUT.AUGMENT.DELIVERIES
trains with.

Images are uint8 RGB H x W x 3. Strengths are in pixels of the image as it is stored, or shares of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from fvcore.transforms.transform import CropTransform, PadTransform, Transform, TransformList

from ddl_d2.data.transforms.photometric import AppearanceSteps
from ddl_d2.data.transforms.resize import AntialiasedResize
from ddl_d2.forging.appearance import Step

Size = tuple[int, int]
Make = Callable[[float, Size, np.random.Generator], list[Transform]]

LEVELS = (1, 2, 3, 4, 5)
"""The levels of every corruption, from hardly visible to severe."""

_BAR = 24  # gray level of the bars around an image on a screen


@dataclass(frozen=True)
class Corruption:
    """One way of losing quality.

    Attributes:
        name: a word, such as "jpeg".
        title: says the strength, with `{}` in its place: "JPEG of quality {}".
        strengths: one for each of `LEVELS`.
        make: the transforms of a strength, an image's size (height, width) and a generator for what is drawn.
    """

    name: str
    title: str
    strengths: tuple[float, ...]
    make: Make

    def strength(self, level: int) -> float:
        """The strength of a level. Raises ValueError for one that is not of `LEVELS`."""
        if level not in LEVELS:
            raise ValueError(f"{self.name}: the level is one of 1 to {len(LEVELS)}, not {level}")
        return self.strengths[level - 1]

    def says(self, level: int) -> str:
        """In words: "JPEG of quality 70"."""
        return self.title.format(f"{self.strength(level):g}")

    def transform(self, level: int, size: Size, rng: np.random.Generator) -> TransformList:
        """The transform of one image.

        Args:
            level: of `LEVELS`.
            size: (height, width) of the image, pixels.
            rng: what is drawn, such as where a crop lies, is drawn from it.
        """
        return TransformList(self.make(self.strength(level), size, rng))


def rng_of(image_id: str, name: str, seed: int = 0) -> np.random.Generator:
    """The generator of one image under one corruption, the same in every run; levels differ in strength alone."""
    text = "\0".join((image_id, name, str(seed)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _changed(*steps: Step) -> list[Transform]:
    return [AppearanceSteps(steps)]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _either(rng: np.random.Generator) -> int:
    """+1 or -1: brighter or darker, more or less."""
    return 1 if rng.random() < 0.5 else -1


def _jpeg(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "jpeg", "quality": int(strength)})


def _webp(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "webp", "quality": int(strength)})


def _resize(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "rescale", "factor": strength})


def _crop(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    height, width = size
    kept_height, kept_width = (max(1, round(side * (1 - strength))) for side in size)
    top, left = int(rng.integers(height - kept_height + 1)), int(rng.integers(width - kept_width + 1))
    return [CropTransform(left, top, kept_width, kept_height, width, height)]


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _screenshot(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    """Shown smaller between the bars of a screen, and kept as JPEG."""
    del rng
    height, width = shown = _scaled(size, strength)
    bar = max(1, round(0.08 * height))
    bars = PadTransform(0, bar, 0, bar, width, height, pad_value=_BAR)
    return [AntialiasedResize(size, shown), bars, *_changed({"name": "jpeg", "quality": 85})]


def _messenger(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    """Shrunk and compressed on sending, compressed again on forwarding."""
    del rng
    steps = _changed({"name": "jpeg", "quality": 80}, {"name": "jpeg", "quality": 65})
    return [AntialiasedResize(size, _scaled(size, strength)), *steps]


def _blur(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "blur", "sigma": strength})


def _motion_blur(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "motion_blur", "length": int(strength), "angle": float(rng.uniform(0, 180))})


def _noise(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "noise", "sigma": strength, "seed": _seed(rng)})


def _poisson(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "poisson", "photons": strength, "seed": _seed(rng)})


def _brightness(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "contrast", "gain": 1.0, "bias": _either(rng) * strength})


def _contrast(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "contrast", "gain": 1 + _either(rng) * strength, "bias": 0.0})


def _gamma(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size
    return _changed({"name": "gamma", "exponent": strength ** _either(rng)})


def _gray(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "saturation", "factor": 1 - strength})


def _video(strength: float, size: Size, rng: np.random.Generator) -> list[Transform]:
    del size, rng
    return _changed({"name": "h264", "crf": int(strength)})


CORRUPTIONS = {
    found.name: found
    for found in (
        Corruption("jpeg", "JPEG of quality {}", (90, 70, 50, 30, 10), _jpeg),
        Corruption("webp", "WebP of quality {}", (90, 75, 50, 30, 10), _webp),
        Corruption("resize", "shrinking to x{} and back", (0.75, 0.5, 0.35, 0.25, 0.15), _resize),
        Corruption("crop", "cutting off a share {} of the sides", (0.05, 0.1, 0.15, 0.2, 0.3), _crop),
        Corruption("screenshot", "a screenshot at x{}", (0.95, 0.85, 0.75, 0.6, 0.45), _screenshot),
        Corruption("messenger", "a messenger: x{}, then JPEG twice", (0.9, 0.75, 0.6, 0.45, 0.3), _messenger),
        Corruption("blur", "blur of {} pixels", (0.5, 1.0, 1.5, 2.0, 3.0), _blur),
        Corruption("motion_blur", "motion blur of {} pixels", (3, 5, 7, 9, 13), _motion_blur),
        Corruption("noise", "noise of {} gray levels", (3.0, 6.0, 10.0, 15.0, 25.0), _noise),
        Corruption("poisson", "shot noise of {} photons", (2000.0, 800.0, 300.0, 120.0, 50.0), _poisson),
        Corruption("brightness", "brightness changed by {}", (20.0, 35.0, 50.0, 70.0, 90.0), _brightness),
        Corruption("contrast", "contrast changed by a share {}", (0.15, 0.3, 0.45, 0.6, 0.75), _contrast),
        Corruption("gamma", "gamma {} or its inverse", (1.2, 1.5, 1.8, 2.2, 2.8), _gamma),
        Corruption("gray", "colors lost by a share {}", (0.2, 0.4, 0.6, 0.8, 1.0), _gray),
        Corruption("video", "H.264 video of rate factor {}", (20, 26, 32, 38, 44), _video),
    )
}
"""All corruptions by their names, in the order of reports."""

TEST_ONLY = frozenset({"webp", "screenshot", "messenger", "poisson"})
"""Corruptions that training never sees, so that a test with them says something of those that nobody thought of."""


@dataclass(frozen=True)
class Delivery:
    """A corruption at one level, as an image may be delivered.

    Attributes:
        corruption: its name.
        level: of `LEVELS`.
    """

    corruption: str
    level: int

    @property
    def name(self) -> str:
        """In words."""
        return CORRUPTIONS[self.corruption].says(self.level)

    def transform(self, image_id: str, size: Size, seed: int = 0) -> TransformList:
        """The transform of one image, the same for each (image_id, corruption, level, seed)."""
        rng = rng_of(image_id, self.corruption, seed)
        return CORRUPTIONS[self.corruption].transform(self.level, size, rng)


DELIVERIES = (
    *(Delivery("jpeg", level) for level in (1, 2, 3, 4)),
    Delivery("webp", 2),
    *(Delivery("resize", level) for level in (1, 2)),
    *(Delivery("screenshot", 2), Delivery("crop", 2), Delivery("messenger", 3)),
    *(Delivery("blur", 2), Delivery("noise", 2)),
)
"""The twelve deliveries under which `ddl-d2 predict --fragility` looks at an image again."""


def check_trainable(names: Sequence[str]) -> None:
    """Raise ValueError unless all names are of corruptions that training may use."""
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        raise ValueError(f"corruptions are some of {', '.join(CORRUPTIONS)}, not {', '.join(unknown)}")
    if kept := sorted(TEST_ONLY.intersection(names)):
        raise ValueError(f"{', '.join(kept)}: kept for testing, and never trained on")
