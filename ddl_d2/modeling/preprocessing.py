"""From mapper rows to the batch that a network takes.

Shapes: `B` images, `H, W` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from torch import Tensor

from ddl_d2.modeling.postprocessing import Size


def normalized_batch(batched_inputs: list[dict[str, Any]], mean: Tensor, std: Tensor, divisibility: int) -> ImageList:
    """Rows with `image` uint8 3×H×W -> one batch B×3×H×W, normalized and then padded with zeros, channels last."""
    images = [(x["image"].to(mean.device).float() - mean) / std for x in batched_inputs]
    batch = ImageList.from_tensors(images, divisibility)
    batch.tensor = batch.tensor.contiguous(memory_format=torch.channels_last)
    return batch


def stretched_batch(batched_inputs: list[dict[str, Any]], size: Size, mean: Tensor, std: Tensor) -> Tensor:
    """Rows with `image` uint8 3×H×W -> one batch B×3×h×w of `size`, normalized, channels last; shape is not kept."""
    images = [_stretched(x["image"].to(mean.device).float(), size) for x in batched_inputs]
    batch = (torch.stack(images) - mean) / std
    return batch.contiguous(memory_format=torch.channels_last)


def stretched_maps(batched_inputs: list[dict[str, Any]], size: Size, device: torch.device) -> Tensor:
    """The `true_map` of each row as `stretched_batch` moves it: float B×h×w, the forged share of each place."""
    return torch.stack([_stretched(true_map(x).to(device)[None], size)[0] for x in batched_inputs])


def _stretched(planes: Tensor, size: Size) -> Tensor:
    """Float C×H×W -> C×h×w, bilinear with antialiasing; values stay within those there were."""
    if tuple(planes.shape[-2:]) == size:
        return planes
    return F.interpolate(planes[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def true_map(row: dict[str, Any]) -> Tensor:
    """Float H×W in [0, 1]: how forged each pixel of a row is, by its `soft_mask` or else its `forgery_mask`."""
    soft = row.get("soft_mask")
    return (row["forgery_mask"] if soft is None else soft).float()


def known_maps(batched_inputs: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Bool B: which rows' forged pixels are known (`localization_valid`); those of the others mean nothing."""
    return torch.tensor([bool(x.get("localization_valid", True)) for x in batched_inputs], device=device)


def fake_labels(batched_inputs: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Return int64 B: 1 for fake, 0 for real (`is_fake`)."""
    return torch.tensor([int(x["is_fake"]) for x in batched_inputs], device=device)


def groups_of_one_size(batched_inputs: list[dict[str, Any]], divisibility: int) -> list[list[int]]:
    """Positions of the rows, grouped by the size they have when padded alone: no row adds padding to its group's."""
    groups: dict[Size, list[int]] = {}
    for position, row in enumerate(batched_inputs):
        height, width = row["image"].shape[-2:]
        groups.setdefault((-(-height // divisibility), -(-width // divisibility)), []).append(position)
    return list(groups.values())
