"""MDMF: two systems' masks fused by mathematical morphology.

Legend: `first` and `second` are bool H x W masks of one image, True = forged; B is a square of k x k ones. In the
published system `first` is LFDL's (sure of the place, coarse) and `second` MITL's (fine, but noisy).

Borders: what lies outside the image counts as authentic for a dilation and has no say in an erosion, so a forged
region that touches the border is not eaten away from there, and closing an all-forged mask leaves it all-forged.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import FusionError

FUSION_MODES = ("paper", "released", "or", "and")
"""How `fuse_masks` can fuse two masks."""


def fuse_masks(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    mode: str = "paper",
    kernel_size: int = 5,
    iterations: int = 1,
) -> NDArray[np.bool_]:
    """Fuse two forgery masks of one image (IJCAI 2025 challenge, second system, eqs. 19 to 21).

    Args:
        first: bool H x W, True = forged.
        second: likewise, of equal size.
        mode: what is returned, + being a dilation by B and - an erosion:
            "paper": (first + B) | (second - B). The printed equations name LFDL twice and have two dilations; the
                abstract, both captions and the text say an *eroded* MITL, and that is built.
            "released": ((first + B) - B) | ((second + B) - B), the closings of the published code.
            "or": first | second, the paper's naive baseline.
            "and": first & second, for the word "intersection" in section 4.3. That names no operation on the masks, so
                they enter as they are, exactly as in "or".
        kernel_size: side k of B in pixels, odd. "or" and "and" do not use it.
        iterations: times each dilation and each erosion is repeated.

    Returns:
        Bool H x W.

    Raises:
        FusionError: another mode, an even or non-positive k, no iterations, or masks that are not bool H x W (a map
            has to be thresholded first), without pixels or of unlike sizes.
    """
    _check_masks(first, second)
    if mode == "paper":
        return dilate(first, kernel_size, iterations) | erode(second, kernel_size, iterations)
    if mode == "released":
        return close(first, kernel_size, iterations) | close(second, kernel_size, iterations)
    if mode == "or":
        return first | second
    if mode == "and":
        return first & second
    raise FusionError(f"the fusion mode is one of {', '.join(FUSION_MODES)}, not {mode!r}")


def dilate(mask: NDArray[np.bool_], kernel_size: int = 5, iterations: int = 1) -> NDArray[np.bool_]:
    """Grow `mask` (bool H x W) by B, `iterations` times: forged if B around the pixel meets a forged one."""
    kernel = _kernel(kernel_size, iterations)
    outside_authentic = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    return cv2.dilate(_bytes(mask), kernel, iterations=iterations, **outside_authentic).view(np.bool_)


def erode(mask: NDArray[np.bool_], kernel_size: int = 5, iterations: int = 1) -> NDArray[np.bool_]:
    """Shrink `mask` (bool H x W) by B, `iterations` times: forged if all of B that lies in the image is forged."""
    kernel = _kernel(kernel_size, iterations)
    outside_neutral = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 1}
    return cv2.erode(_bytes(mask), kernel, iterations=iterations, **outside_neutral).view(np.bool_)


def close(mask: NDArray[np.bool_], kernel_size: int = 5, iterations: int = 1) -> NDArray[np.bool_]:
    """Dilate `mask` (bool H x W), then erode it: holes and gaps narrower than B are filled, nothing is taken away."""
    return erode(dilate(mask, kernel_size, iterations), kernel_size, iterations)


def check_kernel(kernel_size: int, iterations: int) -> None:
    """Raise FusionError unless B has a center and is applied at least once."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise FusionError(f"the kernel has a side of {kernel_size}: it must be odd, such as 3 or 5, to have a center")
    if iterations < 1:
        raise FusionError(f"{iterations} iterations of a dilation or erosion: must be 1 or more")


def _kernel(kernel_size: int, iterations: int) -> NDArray[np.uint8]:
    check_kernel(kernel_size, iterations)
    return np.ones((kernel_size, kernel_size), np.uint8)


def _bytes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """View the pixels as 0 and 1, which is what OpenCV takes; no copy where they lie in order."""
    return np.ascontiguousarray(mask).view(np.uint8)


def _check_masks(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
    for mask in (first, second):
        if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
            raise FusionError(f"a mask is bool H x W, not {mask.dtype} {mask.shape}: threshold a map first")
    if first.shape != second.shape:
        raise FusionError(f"the masks are {first.shape} and {second.shape} pixels: resize the map before thresholding")
