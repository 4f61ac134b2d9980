"""What a camera, a codec and a network do to an image, drawn once and applied to several images alike.

A *step* is a function of an image (uint8 H×W×3 RGB) that returns one of the same type. Applied to the two images of a
pair, the same steps leave between them nothing but the forgery.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.forging.codecs import h264, jpeg
from ddl_d2.forging.draw import Draw, Range

Step = Callable[[np.ndarray], np.ndarray]

_DOWN, _UP = cv2.INTER_AREA, (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_DOWNS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
_BEFORE_JPEG: Range = (40.0, 95.0)
# A face of fewer pixels is a smear.
_NARROWEST = 32.0


def camera_steps(draw: Draw, options: SwapOptions, width: float) -> list[Step]:
    """Draw what a photograph of a face of `width` pixels undergoes before it is forged: softness, noise, a codec.

    What softens a pasted face softens whole photographs, too, or softness alone would tell a forgery.
    """
    steps: list[Step] = []
    if draw.chance(options.soft_camera_prob):
        steps.append(softening(draw, width))
    if draw.chance(0.2):
        steps.append(partial(add_noise, sigma=draw.within((1.0, 7.0)), seed=draw.seed(), gray=draw.chance(0.5)))
    if draw.chance(0.7):
        steps.append(_codec(draw, options, _BEFORE_JPEG))
    return steps


def softening(draw: Draw, width: float) -> Step:
    """Draw a loss of detail of a face of `width` pixels.

    As if a generator of 32 to 256 pixels had made it, a lens were out of focus, or a filter had smoothed its skin.
    """
    kind = float(draw.rng.random())
    if kind < 0.55:
        by = min(draw.within((1.15, 2.0) if draw.chance(0.5) else (2.0, 4.0)), max(width / _NARROWEST, 1.1))
        return partial(resampled, factor=by, down=draw.one_of(_DOWNS), up=draw.one_of(_UP))
    if kind < 0.75:
        return partial(gaussian, sigma=draw.within((0.4, 2.0)))
    if kind < 0.9:
        return partial(cv2.medianBlur, ksize=3 if draw.chance(0.6) else 5)
    return partial(cv2.bilateralFilter, d=5, sigmaColor=draw.within((15.0, 60.0)), sigmaSpace=2.0)


def channel_steps(draw: Draw, options: SwapOptions) -> list[Step]:
    """Draw what the finished pair undergoes: light and colors, resizing, blur, noise, a codec; last `options.size`."""
    steps = _color_steps(draw, options)
    if draw.chance(options.shrink_prob):
        steps.append(partial(resized, side=round(draw.within_log(options.shrink)), up=draw.one_of(_UP)))
        if draw.chance(0.6):
            steps.append(_codec(draw, options, options.jpeg_quality))
    if draw.chance(options.motion_prob):
        steps.append(partial(motion, length=draw.within((2.0, 7.0)), angle=draw.within((0.0, 180.0))))
    if draw.chance(options.blur_prob):
        steps.append(partial(gaussian, sigma=draw.within((0.3, 1.8))))
    steps.append(partial(resized, side=options.size, up=cv2.INTER_LINEAR))
    if draw.chance(options.noise_prob):
        steps.append(partial(add_noise, sigma=draw.within((1.5, 8.0)), seed=draw.seed(), gray=draw.chance(0.5)))
    if draw.chance(options.jpeg_prob):
        steps.append(partial(jpeg, quality=round(draw.within(options.jpeg_quality))))
    return steps


def _color_steps(draw: Draw, options: SwapOptions) -> list[Step]:
    steps: list[Step] = []
    if draw.chance(options.tone_prob):
        gain, bias = draw.within((0.6, 1.25)), draw.within((-40.0, 35.0))
        steps.append(partial(tone, gamma=draw.within_log((0.7, 1.8)), gain=gain, bias=bias))
    if draw.chance(options.cast_prob):
        warmth = draw.within((-0.25, 0.3))
        gains = (1 + warmth, 1 + draw.within((-0.08, 0.08)), 1 - warmth)
        steps.append(partial(cast, gains=gains))
    if draw.chance(options.saturation_prob):
        steps.append(partial(saturated, factor=draw.within((0.4, 1.4))))
    return steps


def _codec(draw: Draw, options: SwapOptions, quality: Range) -> Step:
    if draw.chance(options.h264_prob):
        return partial(h264, crf=round(draw.within(options.h264_crf)))
    return partial(jpeg, quality=round(draw.within(quality)))


def gaussian(image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of `sigma` pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def resampled(image: np.ndarray, *, factor: float, down: int, up: int) -> np.ndarray:
    """Shrink by a factor and enlarge again; `down` and `up` are OpenCV's interpolations."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(8, int(width / factor)), max(8, int(height / factor))), interpolation=down)
    return cv2.resize(small, (width, height), interpolation=up)


def motion(image: np.ndarray, *, length: float, angle: float) -> np.ndarray:
    """Blur along a line of `length` pixels at `angle` degrees."""
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2] = 1.0
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), angle, length / side)
    kernel = cv2.warpAffine(kernel, turn, (side, side), flags=cv2.INTER_LINEAR)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def resized(image: np.ndarray, *, side: int, up: int) -> np.ndarray:
    """Resize to `side` × `side`; `up` is OpenCV's interpolation where the image grows."""
    if image.shape[:2] == (side, side):
        return image
    return cv2.resize(image, (side, side), interpolation=_DOWN if side < image.shape[0] else up)


def tone(image: np.ndarray, *, gamma: float, gain: float, bias: float) -> np.ndarray:
    """Bend values by an exponent, then scale them and add `bias` gray levels."""
    levels = 255 * np.power(np.arange(256) / 255.0, gamma) * gain + bias
    return cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def cast(image: np.ndarray, *, gains: tuple[float, float, float]) -> np.ndarray:
    """Scale red, green and blue, as light of another color does."""
    return cv2.transform(image, np.diag(gains))


def saturated(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Scale the distance of each pixel from its gray value."""
    gray = np.tile([0.299, 0.587, 0.114], (3, 1))
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * gray)


def add_noise(image: np.ndarray, *, sigma: float, seed: int, gray: bool) -> np.ndarray:
    """Add Gaussian noise of `sigma` gray levels, the same one for the same seed; `gray` in all channels alike."""
    noise = Draw(np.random.default_rng(seed)).noise((*image.shape[:2], 1 if gray else 3), sigma)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
