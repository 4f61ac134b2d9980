"""Changing how an image looks, not what it shows: color, sharpness, resolution, compression, noise.

Each change is a function of an image (uint8 H×W×3 RGB, returned alike) and explicit numbers. A *step* is the name of
a change with its numbers, plain enough for JSON; `apply_steps` replays a list of them, noise included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from scipy.special import ndtri

from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions, Range
from ddl_d2.forging.codecs import h264, jpeg, webp

Step = dict[str, Any]

# Gray value of an RGB pixel (ITU-R BT.601), once for each channel.
_GRAY = np.tile([0.299, 0.587, 0.114], (3, 1))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def shift_rgb(image: np.ndarray, *, offsets: Sequence[float]) -> np.ndarray:
    """Add an offset (gray levels, rounded) to each channel."""
    red, green, blue = (float(np.rint(offset)) for offset in offsets)
    return cv2.add(image, (red, green, blue, 0.0))


def saturation(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Scale the distance of every pixel from its gray value; 0 is gray, 1 changes nothing."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * _GRAY)


def hue(image: np.ndarray, *, degrees: float) -> np.ndarray:
    """Turn colors about the gray axis; the gray value of a pixel (mean of its channels) stays."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0)
    return cv2.transform(image, cosine * np.eye(3) + (1 - cosine) / 3.0 + sine * cross)


def contrast(image: np.ndarray, *, gain: float, bias: float) -> np.ndarray:
    """Multiply the distance from the mean gray level by `gain`, then add `bias` (gray levels)."""
    mean = float(np.mean(cv2.mean(image)[:3]))
    return cv2.LUT(image, _to_uint8((np.arange(256) - mean) * gain + mean + bias))


def gamma(image: np.ndarray, *, exponent: float) -> np.ndarray:
    """Raise values in [0, 1] to `exponent`; above 1 darkens."""
    table = _to_uint8(255 * (np.arange(256) / 255.0) ** exponent)
    return cv2.LUT(image, table)


def blur(image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Gaussian blur with `sigma` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion_blur(image: np.ndarray, *, length: int, angle: float) -> np.ndarray:
    """Average along a line of `length` pixels (odd) through each pixel, at `angle` degrees from the horizontal."""
    kernel = np.zeros((length, length), np.uint8)
    half, turn = length // 2, np.deg2rad(angle)
    x, y = round(half * float(np.cos(turn))), round(half * float(np.sin(turn)))
    cv2.line(kernel, (half - x, half - y), (half + x, half + y), 1)
    return cv2.filter2D(image, -1, kernel / np.float32(kernel.sum()))


def sharpen(image: np.ndarray, *, amount: float, sigma: float) -> np.ndarray:
    """Unsharp mask: add `amount` times the difference from the blurred image."""
    return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), sigma), -amount, 0)


def edge_sharpen(image: np.ndarray, *, alpha: float, lightness: float) -> np.ndarray:
    """Sharpen by a 3×3 edge kernel: (1 - alpha) · identity + alpha · (-1 around 8 + lightness).

    The kernel sums to 1 - alpha (1 - lightness): `lightness` under 1 darkens. It is the sharpening SBI uses.
    """
    kernel = np.full((3, 3), -alpha, np.float32)
    kernel[1, 1] = 1 - alpha + alpha * (8 + lightness)
    return cv2.filter2D(image, -1, kernel)


def rescale(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Shrink by `factor` in (0, 1) and enlarge again: the trace of a lower resolution."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def noise(image: np.ndarray, *, sigma: float, seed: int, grain: float = 0.0) -> np.ndarray:
    """Gaussian noise of `sigma` gray levels, the same for one `seed`; `grain` > 0 blurs it (pixels)."""
    if grain <= 0:
        return _white_noise(image, sigma, seed)
    values = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    values = cv2.GaussianBlur(values, (0, 0), grain)
    values /= max(float(values.std()), 1e-6)
    return _to_uint8(image.astype(np.float32) + sigma * values)


def _white_noise(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Noise of independent values, each rounded: gray levels are whole numbers, so nothing is lost by it.

    16 random bits choose a normal quantile, which is five times as fast as normal numbers; the largest is 4.3 sigma.
    """
    levels = np.rint(sigma * _normal_quantiles()).astype(np.int16)
    bits = np.random.default_rng(seed).integers(1 << 16, size=image.shape, dtype=np.uint16)
    return cv2.add(image, levels.take(bits, mode="wrap"), dtype=cv2.CV_8U)  # no index to wrap, nor to check


@cache
def _normal_quantiles() -> np.ndarray:
    """65,536 numbers, each as likely, with the distribution of a normal one."""
    return ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))


def poisson(image: np.ndarray, *, photons: float, seed: int) -> np.ndarray:
    """Shot noise of a sensor that counts `photons` where the image is white; the same for one `seed`."""
    counts = np.random.default_rng(seed).poisson(image.astype(np.float32) * (photons / 255))
    return _to_uint8(counts * (255 / photons))


def light(image: np.ndarray, *, angle: float, low: float, high: float) -> np.ndarray:
    """Light from one side: a gain that grows linearly from `low` to `high` along `angle` (radians)."""
    height, width = image.shape[:2]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    ramp = x * np.cos(angle) + y * np.sin(angle)
    ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
    return _to_uint8(image.astype(np.float32) * (low + (high - low) * ramp)[..., None])


CHANGES = {
    change.__name__: change
    for change in (
        *(shift_rgb, saturation, hue, contrast, gamma, light),
        *(blur, motion_blur, sharpen, edge_sharpen, rescale, noise, poisson),
        *(jpeg, webp, h264),
    )
}


def apply_steps(image: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Apply `steps`, each {"name": a key of `CHANGES`, ...its numbers}, in order.

    Raises:
        ValueError: an unknown name.
    """
    for step in steps:
        name = step["name"]
        if name not in CHANGES:
            raise ValueError(f"unknown change {name!r}; known: {', '.join(CHANGES)}")
        image = CHANGES[name](image, **{key: value for key, value in step.items() if key != "name"})
    return image


def draw_post_steps(rng: np.random.Generator, options: PostOptions | None = None) -> list[Step]:
    """Draw changes for a real image and its forgery alike, so that none of them gives the forgery away.

    Draw once per pair and hand the same steps to `apply_steps` for both images. Masks stay as they are.
    """
    options = options or PostOptions()
    steps = draw_color_steps(rng, options)
    if rng.random() < options.sharpen_prob:
        steps.append({"name": "sharpen", "amount": drawn(rng, options.sharpen), "sigma": 1.0})
    if rng.random() < options.downscale_prob:
        steps.append({"name": "rescale", "factor": round(1 / drawn(rng, options.downscale), 4)})
    if rng.random() < options.jpeg_prob:
        low, high = options.jpeg_quality
        steps.append({"name": "jpeg", "quality": int(rng.integers(low, high + 1))})
    return steps


def draw_color_steps(rng: np.random.Generator, options: PostOptions | ForgeryOptions) -> list[Step]:
    """Draw RGB shift, hue with saturation, brightness with contrast, each with its probability of `options`."""
    steps: list[Step] = []
    if rng.random() < options.rgb_shift_prob:
        steps.append({"name": "shift_rgb", "offsets": [drawn(rng, options.rgb_shift) for _ in range(3)]})
    if rng.random() < options.color_prob:
        steps.append({"name": "hue", "degrees": drawn(rng, options.hue)})
        steps.append({"name": "saturation", "factor": drawn(rng, options.saturation)})
    if rng.random() < options.tone_prob:
        steps.append(_tone_step(rng, options.brightness, options.contrast))
    return steps


def drawn(rng: np.random.Generator, limits: Range) -> float:
    """Draw a number evenly from a range, rounded to what the record of it holds."""
    return round(float(rng.uniform(*limits)), 4)


def _tone_step(rng: np.random.Generator, brightness: Range, contrast: Range) -> Step:
    """A step of brightness (share of 255) and contrast (change of the gain 1) drawn from their ranges."""
    gain, bias = round(1 + drawn(rng, contrast), 4), round(255 * drawn(rng, brightness), 4)
    return {"name": "contrast", "gain": gain, "bias": bias}
