"""What forgeries and their real partners are drawn from: the ranges behind INPUT.SELF_BLEND.

Each field is a config key: `drag_count` of `ForgeryOptions` is INPUT.SELF_BLEND.DRAG_COUNT, `hue` of `PostOptions` is
INPUT.SELF_BLEND.POST.HUE. The comment above a field is its documentation, also in the config reference.

A range is (smallest, largest), both included. A probability of 0 switches a step off. *Raster pixels* are those of the
square of `raster` pixels a side in which a face (the box of its landmarks, enlarged by a half) is masked, whatever its
size in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_origin, get_type_hints

Range = tuple[float, float]
IntRange = tuple[int, int]

PART_NAMES = ("both_eyes", "left_eye", "right_eye", "brows", "eye_band", "nose", "mouth", "lower_face")
REGION_NAMES = (*PART_NAMES, "face")
"""The regions of a face that can be forged; `ddl_d2.forging.regions.REGIONS` says which landmarks bound each."""
FREQUENCY_KINDS = ("downscale", "sharpen", "blur")


@dataclass(frozen=True)
class Within:
    """The limits of an option, or of both ends of its range; they are allowed themselves."""

    low: float
    high: float = math.inf


Probability = Annotated[float, Within(0.0, 1.0)]


@dataclass(frozen=True)
class ForgeryOptions:
    """The ranges that a self-blended forgery is drawn from; the comment above each field is its meaning.

    Defaults are those of self-blended images (SBI, CVPR 2022: appearance, moves, elastic and soft mask) and of the
    local-displacement self-blending paper (Sci. Rep. 2025: regions, area factors, drags).

    Raises:
        ValueError: a value out of its limits, a range the wrong way round, an unknown region or kind.
    """

    # How likely each face is forged; at least one always is.
    face_prob: Probability = 0.7
    # Faces narrower than this many pixels are left alone.
    min_face_width: Annotated[float, Within(1.0)] = 24.0
    # Faces narrower than this many pixels are forged whole: their parts are a handful of pixels.
    min_width_for_parts: Annotated[float, Within(0.0)] = 72.0
    # How likely the region is the whole face; otherwise PART_COUNT of PARTS, one after the other. One to three of eyes,
    # nose, mouth and face, each as likely, hold the face half of the time.
    whole_face_prob: Probability = 0.5
    # The regions that a part is drawn from: eyes, nose and mouth are as likely, however many parts show them.
    parts: tuple[str, ...] = PART_NAMES
    # How many parts of a face are forged, less where PARTS holds no more that do not overlap.
    part_count: Annotated[IntRange, Within(1)] = (1, 3)
    # Factor by which the area of eyes or brows is scaled.
    eyes_area: Annotated[Range, Within(0.1, 4.0)] = (0.8, 1.2)
    # Factor by which the nose's area is scaled.
    nose_area: Annotated[Range, Within(0.1, 4.0)] = (0.85, 1.15)
    # Factor by which the mouth's area is scaled.
    mouth_area: Annotated[Range, Within(0.1, 4.0)] = (0.9, 1.3)
    # Factor by which the area of the face, or of its lower half, is scaled.
    face_area: Annotated[Range, Within(0.1, 4.0)] = (0.9, 1.1)
    # How likely a whole face reaches into the forehead.
    forehead_prob: Probability = 0.75
    # How far it reaches above the brows, as a share of the way from the chin to the bridge of the nose.
    forehead: Annotated[Range, Within(0.01, 1.0)] = (0.15, 0.4)

    # Number of local translations around landmarks of the region; [0, 0] switches them off.
    drag_count: Annotated[IntRange, Within(0)] = (1, 2)
    # Radius of the circle that a local translation moves, as a share of the face's width.
    drag_radius: Annotated[Range, Within(0.01, 2.0)] = (0.15, 0.25)
    # Length of a local translation, as a share of its radius; above a third the map would fold.
    drag_length: Annotated[Range, Within(0.0, 1 / 3)] = (0.15, 1 / 3)
    # How likely the target is also moved as a whole, its mask with it, by SHIFT_X, SHIFT_Y and SCALE.
    move_prob: Probability = 1.0
    # Horizontal shift of the target, as a share of the face's square: SBI's 3 % of a crop twice as wide as the face.
    shift_x: Annotated[Range, Within(-0.5, 0.5)] = (-0.04, 0.04)
    # Vertical shift of the target, as a share of the face's square: SBI's 1.5 % of a crop 2.4 times as high.
    shift_y: Annotated[Range, Within(-0.5, 0.5)] = (-0.024, 0.024)
    # Factor by which the target is scaled about the region's center.
    scale: Annotated[Range, Within(0.5, 2.0)] = (0.95, 1 / 0.95)

    # How likely the mask is deformed elastically: moved by white noise in [-1, 1] that is blurred and multiplied.
    elastic_prob: Probability = 1.0
    # Factor of the elastic deformation's blurred noise, raster pixels.
    elastic_alpha: Annotated[float, Within(0.0, 1000.0)] = 50.0
    # Sigma of the blur of the elastic deformation's noise, raster pixels.
    elastic_sigma: Annotated[float, Within(1.0, 64.0)] = 7.0
    # How likely the mask is averaged over the cells of a turned grid. Off by default: the paper's "mosaic" is most
    # likely a mistranslation of "mask".
    mosaic_prob: Probability = 0.0
    # Side of the grid's square cells, raster pixels.
    mosaic_cell: Annotated[IntRange, Within(1, 64)] = (4, 16)
    # Turn of the grid, degrees.
    mosaic_angle: Annotated[Range, Within(-45.0, 45.0)] = (-5.0, 5.0)
    # Factor by which the averaged mask is weakened.
    mosaic_opacity: Annotated[Range, Within(0.01, 1.0)] = (0.85, 1.0)
    # Side of the square in which a face is masked, in raster pixels.
    raster: Annotated[IntRange, Within(32, 1024)] = (192, 256)
    # Odd size of the erosion's kernel, raster pixels: the mask loses a rim of (size - 1) / 2, less in a small region.
    erode_kernel: Annotated[IntRange, Within(1, 101)] = (5, 25)
    # Odd size of the kernel of the Gaussian blur that softens the mask, raster pixels; smaller in a small region.
    blur_kernel: Annotated[IntRange, Within(1, 101)] = (5, 25)
    # Sigma of the Gaussian blur that softens the mask, raster pixels.
    blur_sigma: Annotated[Range, Within(0.1, 1000.0)] = (5.0, 45.0)
    # The weight of the forged content inside the mask is one of these, each in (0, 1].
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)

    # Weights with which the changes of appearance go to the source, to the target, or differently to both.
    appearance_weights: tuple[float, float, float] = (0.5, 0.5, 0.0)
    # How likely the red, green and blue channels are shifted.
    rgb_shift_prob: Probability = 0.3
    # Offset of each channel, gray levels.
    rgb_shift: Annotated[Range, Within(-255.0, 255.0)] = (-20.0, 20.0)
    # How likely hue and saturation change.
    color_prob: Probability = 1.0
    # Turn of the hue, degrees. SBI's own "±.3" is less than one gray level, which changes nothing.
    hue: Annotated[Range, Within(-180.0, 180.0)] = (-2.0, 2.0)
    # Factor of the saturation.
    saturation: Annotated[Range, Within(0.0, 4.0)] = (0.9, 1.1)
    # How likely brightness and contrast change.
    tone_prob: Probability = 1.0
    # Added brightness, as a share of 255.
    brightness: Annotated[Range, Within(-1.0, 1.0)] = (-0.1, 0.1)
    # Change of the contrast's gain, which is 1 without it.
    contrast: Annotated[Range, Within(-1.0, 4.0)] = (-0.1, 0.1)
    # How likely one of the kinds FREQUENCY is applied.
    frequency_prob: Probability = 1.0
    # The kinds of change that FREQUENCY_PROB is of: "downscale", "sharpen", "blur", each as likely.
    frequency: tuple[str, ...] = ("downscale", "sharpen")
    # The factor of "downscale" is one of these, less where it would leave a face under 32 pixels.
    downscale: tuple[float, ...] = (2.0, 4.0)
    # The share of the sharpened image in "sharpen".
    sharpen_alpha: Annotated[Range, Within(0.0, 1.0)] = (0.2, 0.5)
    # The lightness of the sharpened image in "sharpen"; under 1 darkens.
    sharpen_lightness: Annotated[Range, Within(0.0, 2.0)] = (0.5, 1.0)
    # Sigma of "blur", as a share of the face's width.
    blur_width: Annotated[Range, Within(0.0, 0.2)] = (0.005, 0.011)
    # How likely Gaussian noise is added.
    noise_prob: Probability = 0.0
    # Standard deviation of the noise, gray levels.
    noise: Annotated[Range, Within(0.0, 255.0)] = (3.0, 8.0)
    # How likely the image is compressed as JPEG again.
    jpeg_prob: Probability = 0.0
    # Quality of the JPEG.
    jpeg_quality: Annotated[IntRange, Within(1, 100)] = (25, 70)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_names("parts", self.parts, REGION_NAMES)
        _check_names("frequency", self.frequency, FREQUENCY_KINDS)
        _check_all("ratios", self.ratios, 0.0, 1.0)
        _check_all("downscale", self.downscale, 1.0, 64.0)
        if len(self.appearance_weights) != 3 or min(self.appearance_weights) < 0 or not sum(self.appearance_weights):
            raise ValueError(
                f"appearance_weights are three (source, target, both), none negative, not all 0: "
                f"not {self.appearance_weights}"
            )


@dataclass(frozen=True)
class PostOptions:
    """The ranges of the changes that a real image and its forgery undergo alike; comments as in `ForgeryOptions`.

    Defaults are SBI's: RGB shift, color and tone with .3, JPEG 40-100 with .5; sharpening and down-scaling are the
    local-displacement paper's.

    Raises:
        ValueError: a value out of its limits, or a range the wrong way round.
    """

    # How likely the red, green and blue channels are shifted.
    rgb_shift_prob: Probability = 0.3
    # Offset of each channel, gray levels.
    rgb_shift: Annotated[Range, Within(-255.0, 255.0)] = (-20.0, 20.0)
    # How likely hue and saturation change.
    color_prob: Probability = 0.3
    # Turn of the hue, degrees.
    hue: Annotated[Range, Within(-180.0, 180.0)] = (-10.0, 10.0)
    # Factor of the saturation.
    saturation: Annotated[Range, Within(0.0, 4.0)] = (0.7, 1.3)
    # How likely brightness and contrast change.
    tone_prob: Probability = 0.3
    # Added brightness, as a share of 255.
    brightness: Annotated[Range, Within(-1.0, 1.0)] = (-0.3, 0.3)
    # Change of the contrast's gain, which is 1 without it.
    contrast: Annotated[Range, Within(-1.0, 4.0)] = (-0.3, 0.3)
    # How likely an unsharp mask sharpens the image.
    sharpen_prob: Probability = 0.1
    # Amount of the unsharp mask: the factor of the difference from the blurred image.
    sharpen: Annotated[Range, Within(0.0, 10.0)] = (0.2, 0.8)
    # How likely the image is shrunk and enlarged again.
    downscale_prob: Probability = 0.1
    # Factor by which the image is shrunk.
    downscale: Annotated[Range, Within(1.0, 64.0)] = (1.2, 2.5)
    # How likely the image is compressed as JPEG again.
    jpeg_prob: Probability = 0.5
    # Quality of the JPEG.
    jpeg_quality: Annotated[IntRange, Within(1, 100)] = (40, 100)

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(options: Any) -> None:
    """Make lists, as a config file gives them, tuples, and hold every value against its limits."""
    limits = _limits(type(options))  # type: ignore[arg-type]  # a class can be hashed, whatever mypy says of it
    for option in fields(options):
        value = getattr(options, option.name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(options, option.name, value)
        if option.name in limits:
            _check_limits(option.name, value, *limits[option.name])


@cache
def _limits(options: type) -> dict[str, tuple[Within, bool]]:
    """Field name -> its limits, and whether it is a range."""
    hints = get_type_hints(options, include_extras=True)
    return {
        name: (hint.__metadata__[0], get_origin(hint.__origin__) is tuple)
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
    }


def _check_limits(name: str, value: Any, within: Within, is_range: bool) -> None:
    if is_range and (not isinstance(value, tuple) or len(value) != 2):
        raise ValueError(f"{name} is a range (smallest, largest), not {value!r}")
    for number in value if is_range else (value,):
        known = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not known or not within.low <= number <= within.high:
            raise ValueError(f"{name} must lie within {within.low:g} and {within.high:g}, not {value!r}")
    if is_range and value[0] > value[1]:
        raise ValueError(f"{name} is a range (smallest, largest), not {value!r}")


def _check_names(name: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [value for value in values if value not in known]
    if unknown or not values:
        raise ValueError(f"unknown {name} {unknown or values}; known: {', '.join(known)}")


def _check_all(name: str, values: tuple[float, ...], above: float, most: float) -> None:
    if not values or not all(above < value <= most for value in values):
        raise ValueError(f"{name} must be numbers above {above:g}, up to {most:g}, not {values!r}")
