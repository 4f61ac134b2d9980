"""From a mapper's rows to the batch that a network takes, and to what it shall learn.

Shapes: `B` images, `H, W` pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from torch import Tensor

from ddl_d2.modeling.postprocessing import Size
from ddl_d2.utils.transfer import on_device, to_device


def normalized_batch(batched_inputs: list[dict[str, Any]], mean: Tensor, std: Tensor, divisibility: int) -> ImageList:
    """Make one batch of rows whose images differ in size: normalized, then padded with zeros.

    Args:
        batched_inputs: rows with `image` uint8 3×H×W.
        mean: 3×1×1, subtracted.
        std: 3×1×1, divides the difference.
        divisibility: height and width of the batch are multiples of it.

    Returns:
        `tensor` float B×3×H×W, channels last, and `image_sizes`, the unpadded (height, width) of each image.
    """
    sizes = [(x["image"].shape[-2], x["image"].shape[-1]) for x in batched_inputs]
    step = max(divisibility, 1)
    height, width = (-(-max(sides) // step) * step for sides in zip(*sizes, strict=True))
    batch = mean.new_zeros(len(sizes), len(mean), height, width).contiguous(memory_format=torch.channels_last)
    for place, row, (h, w) in zip(batch, batched_inputs, sizes, strict=True):
        torch.div(to_device(row["image"], mean.device).float() - mean, std, out=place[:, :h, :w])
    return ImageList(batch, sizes)


def stretched_batch(batched_inputs: list[dict[str, Any]], size: Size, mean: Tensor, std: Tensor) -> Tensor:
    """Make one batch of rows by stretching every image to `size` (height, width), whatever its shape.

    Args:
        batched_inputs: rows with `image` uint8 3×H×W.
        size: (h, w).
        mean: 3×1×1, subtracted.
        std: 3×1×1, divides the difference.

    Returns:
        float B×3×h×w, channels last.
    """
    images = [_stretched(to_device(x["image"], mean.device).float(), size) for x in batched_inputs]
    batch = (torch.stack(images) - mean) / std
    return batch.contiguous(memory_format=torch.channels_last)


def stretched_maps(
    batched_inputs: list[dict[str, Any]], size: Size, device: torch.device, *, antialias: bool = True
) -> Tensor:
    """Stretch the `true_map` of each row as `stretched_batch` does: float B×h×w, the forged share of each place."""
    maps = [to_device(true_map(x), device)[None] for x in batched_inputs]
    return torch.stack([_stretched(one, size, antialias=antialias)[0] for one in maps])


def _stretched(planes: Tensor, size: Size, *, antialias: bool = True) -> Tensor:
    """Resize float C×H×W to C×h×w, bilinearly: values stay within the range they have."""
    if tuple(planes.shape[-2:]) == size:
        return planes
    return F.interpolate(planes[None], size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def true_map(row: dict[str, Any]) -> Tensor:
    """Return how forged each pixel of a row is, float H×W in [0, 1]: its `soft_mask` or else its `forgery_mask`."""
    soft = row.get("soft_mask")
    return (row["forgery_mask"] if soft is None else soft).float()


def known_maps(batched_inputs: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Return bool B: whether the forged pixels of a row are known (`localization_valid`); others mean nothing."""
    return on_device([is_known(x) > 0 for x in batched_inputs], device)


def is_known(row: dict[str, Any]) -> float:
    """Return 1 if the forged pixels of a row are known, else 0."""
    return float(bool(row.get("localization_valid", True)))


def map_weight(row: dict[str, Any], *, real_weight: float) -> float:
    """Return how much a row counts in the losses of maps: 0 if its forged pixels are not known, for a real one less."""
    return is_known(row) * (1.0 if row["is_fake"] else real_weight)


class Truth(NamedTuple):
    """What a batch teaches.

    Attributes:
        maps: float B×H×W in [0, 1], how forged each pixel is.
        valid: bool B×H×W, not padding.
        known: bool B, whether the map is supervised.
    """

    maps: Tensor
    valid: Tensor
    known: Tensor


def padded_truth(batched_inputs: list[dict[str, Any]], images: ImageList) -> Truth:
    """Pad the `true_map` of each row as `normalized_batch` padded its image."""
    device = images.tensor.device
    maps = torch.zeros(len(batched_inputs), *images.tensor.shape[-2:], device=device)
    valid = torch.zeros_like(maps, dtype=torch.bool)
    for b, (row, (height, width)) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
        maps[b, :height, :width] = to_device(true_map(row), device)
        valid[b, :height, :width] = True
    return Truth(maps, valid, known_maps(batched_inputs, device))


def fake_labels(batched_inputs: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Return int64 B: 1 for fake, 0 for real (`is_fake`)."""
    return on_device([int(x["is_fake"]) for x in batched_inputs], device)


def groups_of_one_size(batched_inputs: list[dict[str, Any]], divisibility: int) -> list[list[int]]:
    """Group the positions of rows by the size they have when padded alone, so that no row adds padding to others."""
    groups: dict[Size, list[int]] = {}
    for position, row in enumerate(batched_inputs):
        height, width = row["image"].shape[-2:]
        groups.setdefault((-(-height // divisibility), -(-width // divisibility)), []).append(position)
    return list(groups.values())
