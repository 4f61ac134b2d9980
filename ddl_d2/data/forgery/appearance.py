"""Changing how a picture looks, not what it shows: colour, sharpness, resolution, compression, noise.

Each change is a function of a picture (uint8 H×W×3 RGB, returned alike) and explicit numbers. A *step* is the name of
a change with its numbers, plain enough for JSON; `apply_steps` replays a list of them, noise included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

Step = dict[str, Any]


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def shift_rgb(image: np.ndarray, *, offsets: Sequence[float]) -> np.ndarray:
    """Add one offset (grey levels) to each channel."""
    return _to_uint8(image.astype(np.float32) + np.asarray(offsets, np.float32))


def saturation(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Scale the distance of every pixel from its grey value; 0 is grey, 1 changes nothing."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return _to_uint8(grey + (image.astype(np.float32) - grey) * factor)


def contrast(image: np.ndarray, *, gain: float, bias: float) -> np.ndarray:
    """Multiply the distance from the mean grey level by `gain`, then add `bias` (grey levels)."""
    mean = float(image.mean())
    return _to_uint8((image.astype(np.float32) - mean) * gain + mean + bias)


def gamma(image: np.ndarray, *, exponent: float) -> np.ndarray:
    """Raise values in [0, 1] to `exponent`; above 1 darkens."""
    table = _to_uint8(255 * (np.arange(256) / 255.0) ** exponent)
    return cv2.LUT(image, table)


def blur(image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Gaussian blur with `sigma` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def sharpen(image: np.ndarray, *, amount: float, sigma: float) -> np.ndarray:
    """Unsharp mask: add `amount` times the difference from the blurred picture."""
    values = image.astype(np.float32)
    return _to_uint8(values + amount * (values - cv2.GaussianBlur(values, (0, 0), sigma)))


def rescale(image: np.ndarray, *, factor: float) -> np.ndarray:
    """Shrink by `factor` in (0, 1) and enlarge again: the trace of a lower resolution."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Compress as JPEG (4:2:0) at `quality` 1-100 and decompress."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {image.shape} picture as JPEG")
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def noise(image: np.ndarray, *, sigma: float, seed: int, grain: float = 0.0) -> np.ndarray:
    """Gaussian noise of `sigma` grey levels, the same for one `seed`; `grain` > 0 blurs it (pixels)."""
    values = np.random.default_rng(seed).normal(0.0, 1.0, image.shape).astype(np.float32)
    if grain > 0:
        values = cv2.GaussianBlur(values, (0, 0), grain)
        values /= max(float(values.std()), 1e-6)
    return _to_uint8(image.astype(np.float32) + sigma * values)


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
    for change in (shift_rgb, saturation, contrast, gamma, blur, sharpen, rescale, jpeg, noise, light)
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
