"""What a forgery is drawn from: one frozen dataclass of ranges and probabilities.

Defaults are those of self-blended images (SBI, CVPR 2022: appearance, moves, elastic and soft mask) and of the
local-displacement self-blending paper (Sci. Rep. 2025: regions, area factors, drags).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ddl_d2.forging.regions import REGIONS

Range = tuple[float, float]
IntRange = tuple[int, int]

DEFAULT_PARTS = ("both_eyes", "left_eye", "right_eye", "brows", "eye_band", "nose", "mouth", "lower_face")


def _probability(value: float) -> Any:
    return field(default=value, metadata={"within": (0.0, 1.0)})


def _number(value: float, low: float, high: float = math.inf) -> Any:
    return field(default=value, metadata={"within": (low, high)})


def _range(value: tuple[float, float], low: float, high: float = math.inf) -> Any:
    """A range (smallest, largest), both ends within [low, high]."""
    return field(default=value, metadata={"within": (low, high), "ordered": True})


@dataclass(frozen=True)
class ForgeryOptions:
    """The ranges that a forgery is drawn from; a range is (smallest, largest), both included.

    A probability of 0 switches a step off. *Raster pixels* are those of the square of `raster` pixels a side that a
    face (the box of its landmarks, enlarged by a half) is drawn in for masking, whatever its size in the image.

    Which faces and regions:
        face_prob: how likely each face is forged; at least one always is.
        min_face_width: faces narrower than this many pixels are left alone.
        min_width_for_parts: narrower faces are forged whole: their parts are a handful of pixels.
        whole_face_prob: how likely the region is the whole face, else `part_count` different ones of `parts`, one
            after the other.
        eyes_area, nose_area, mouth_area, face_area: factors by which a region's area is scaled; brows count as eyes,
            the lower face as face.

    Displacement of the target (lengths are shares of the face's width unless said otherwise):
        drag_count: local translations around landmarks of the region; (0, 0) switches them off.
        drag_radius: of the circle that moves.
        drag_length: as a share of the radius; a third at most, so that the map does not fold.
        move_prob: how likely the target is also moved as a whole, by `shift_x`, `shift_y` (shares of the face's
            square) and scaled by `scale` about the region's center.

    Mask:
        elastic_prob, elastic_alpha, elastic_sigma: elastic deformation: white noise in [-1, 1], blurred with sigma
            and multiplied by alpha, moves the mask (raster pixels).
        mosaic_prob: how likely the mask is averaged over square cells of `mosaic_cell` raster pixels on a grid
            turned by `mosaic_angle` degrees and weakened to `mosaic_opacity`. Off: the paper's "mosaic" is most
            likely a mistranslation of "mask".
        raster: side of the face's square, raster pixels.
        erode_kernel, blur_kernel, blur_sigma: the mask loses a rim of (kernel - 1) / 2 and is blurred by a Gaussian
            of another odd kernel and sigma, all in raster pixels. Kernels are cut to what a small region can bear.
        ratios: the weight of the forged content inside the mask is one of these.

    Appearance (made for the source, the target, or differently for both):
        appearance_weights: how likely it goes to (the source, the target, both); they need not sum to 1.
        rgb_shift_prob, rgb_shift: offset of each channel, gray levels.
        color_prob, hue, saturation: degrees, factor. SBI's own "±.3" is under one gray level, that is nothing.
        tone_prob, brightness, contrast: brightness is added (share of 255), contrast changes the gain 1 by so much.
        frequency_prob, frequency: how likely one of these kinds: "downscale" by one of `downscale` (less where that
            would leave a face under 32 pixels), "sharpen" with `sharpen_alpha` and `sharpen_lightness`, "blur" with
            `blur_width` (sigma, share of the face's width).
        noise_prob, noise: Gaussian noise, gray levels. Off by default.
        jpeg_prob, jpeg_quality: recompression. Off by default.

    Raises:
        ValueError: a value out of its limits, a range the wrong way round, an unknown region or kind.
    """

    face_prob: float = _probability(0.7)
    min_face_width: float = _number(24.0, 1.0)
    min_width_for_parts: float = _number(72.0, 0.0)
    whole_face_prob: float = _probability(0.3)
    parts: tuple[str, ...] = DEFAULT_PARTS
    part_count: IntRange = _range((1, 3), 1)
    eyes_area: Range = _range((0.8, 1.2), 0.1, 4.0)
    nose_area: Range = _range((0.85, 1.15), 0.1, 4.0)
    mouth_area: Range = _range((0.9, 1.3), 0.1, 4.0)
    face_area: Range = _range((0.9, 1.1), 0.1, 4.0)

    drag_count: IntRange = _range((1, 2), 0)
    drag_radius: Range = _range((0.15, 0.25), 0.01, 2.0)
    drag_length: Range = _range((0.15, 1 / 3), 0.0, 1 / 3)
    move_prob: float = _probability(0.5)
    shift_x: Range = _range((-0.03, 0.03), -0.5, 0.5)
    shift_y: Range = _range((-0.015, 0.015), -0.5, 0.5)
    scale: Range = _range((0.95, 1 / 0.95), 0.5, 2.0)

    elastic_prob: float = _probability(1.0)
    elastic_alpha: float = _number(50.0, 0.0, 1000.0)
    elastic_sigma: float = _number(7.0, 1.0, 64.0)
    mosaic_prob: float = _probability(0.0)
    mosaic_cell: IntRange = _range((4, 16), 1, 64)
    mosaic_angle: Range = _range((-5.0, 5.0), -45.0, 45.0)
    mosaic_opacity: Range = _range((0.85, 1.0), 0.01, 1.0)
    raster: IntRange = _range((192, 256), 32, 1024)
    erode_kernel: IntRange = _range((5, 25), 1, 101)
    blur_kernel: IntRange = _range((5, 25), 1, 101)
    blur_sigma: Range = _range((5.0, 45.0), 0.1, 1000.0)
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)

    appearance_weights: tuple[float, float, float] = (0.5, 0.5, 0.0)
    rgb_shift_prob: float = _probability(0.3)
    rgb_shift: Range = _range((-20.0, 20.0), -255.0, 255.0)
    color_prob: float = _probability(1.0)
    hue: Range = _range((-2.0, 2.0), -180.0, 180.0)
    saturation: Range = _range((0.9, 1.1), 0.0, 4.0)
    tone_prob: float = _probability(1.0)
    brightness: Range = _range((-0.1, 0.1), -1.0, 1.0)
    contrast: Range = _range((-0.1, 0.1), -1.0, 4.0)
    frequency_prob: float = _probability(1.0)
    frequency: tuple[str, ...] = ("downscale", "sharpen")
    downscale: tuple[float, ...] = (2.0, 4.0)
    sharpen_alpha: Range = _range((0.2, 0.5), 0.0, 1.0)
    sharpen_lightness: Range = _range((0.5, 1.0), 0.0, 2.0)
    blur_width: Range = _range((0.005, 0.011), 0.0, 0.2)
    noise_prob: float = _probability(0.0)
    noise: Range = _range((3.0, 8.0), 0.0, 255.0)
    jpeg_prob: float = _probability(0.0)
    jpeg_quality: IntRange = _range((25, 70), 1, 100)

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, list):  # as a config file gives it
                value = tuple(value)
                object.__setattr__(self, option.name, value)
            if "within" in option.metadata:
                _check_limits(option.name, value, option.metadata["within"], bool(option.metadata.get("ordered")))
        _check_names("parts", self.parts, tuple(REGIONS))
        _check_names("frequency", self.frequency, ("downscale", "sharpen", "blur"))
        _check_all("ratios", self.ratios, 0.0, 1.0)
        _check_all("downscale", self.downscale, 1.0, 64.0)
        if len(self.appearance_weights) != 3 or min(self.appearance_weights) < 0 or not sum(self.appearance_weights):
            raise ValueError(
                f"appearance_weights are three (source, target, both), none negative, not all 0: "
                f"not {self.appearance_weights}"
            )


def _check_limits(name: str, value: Any, limits: Range, ordered: bool) -> None:
    numbers = value if ordered else (value,)
    if ordered and (not isinstance(value, tuple) or len(value) != 2):
        raise ValueError(f"{name} is a range (smallest, largest), not {value!r}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not limits[0] <= number <= limits[1]:
            raise ValueError(f"{name} must lie within {limits[0]:g} and {limits[1]:g}, not {value!r}")
    if ordered and value[0] > value[1]:
        raise ValueError(f"{name} is a range (smallest, largest), not {value!r}")


def _check_names(name: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [value for value in values if value not in known]
    if unknown or not values:
        raise ValueError(f"unknown {name} {unknown or values}; known: {', '.join(known)}")


def _check_all(name: str, values: tuple[float, ...], above: float, most: float) -> None:
    if not values or not all(above < value <= most for value in values):
        raise ValueError(f"{name} must be numbers above {above:g}, up to {most:g}, not {values!r}")
