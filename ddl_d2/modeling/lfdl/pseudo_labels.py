"""Labels of locations where no mask is known: semi-supervised patch similarity learning (SSPSL).

Source: "Locate and Verify" (Shuai et al., ACM MM 2023), eqs. 7 to 9. A place of a fake image is called forged if it
looks more like the noses of the batch's fake images than like its real images. This assumes what is true of face swaps
and reenactments: that the nose, at least, is forged.

Shapes: `B` images, `C` channels, `h, w` cells of the grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddl_d2.modeling.postprocessing import Size
from ddl_d2.utils.transfer import to_device

# Where a face crop has its nose, in shares of its width and height.
MIDDLE = (0.4, 0.4, 0.6, 0.6)


class PseudoLabels(NamedTuple):
    """What `label_locations` found.

    Attributes:
        cells: bool B×h×w, forged or not.
        labeled: bool B, the images whose cells could be labeled.
    """

    cells: Tensor
    labeled: Tensor


@torch.no_grad()
def label_locations(features: Tensor, is_fake: Tensor, known: Tensor, nose: Tensor) -> PseudoLabels:
    """Label the fake images whose mask is not known.

    With f a place's feature scaled to length 1, f_r the mean of f over all places of the batch's real images and f_a
    its mean over the noses of the fake images to be labeled: forged where cos(f, f_r) < cos(f, f_a). (The noses of
    images whose mask is known have no part: their mask may call them authentic.) A batch without a real image, or
    without a nose, labels none.

    Args:
        features: B×C×h×w.
        is_fake: bool B.
        known: bool B, whether the mask is known.
        nose: bool B×h×w, see `nose_cells`.
    """
    unit = F.normalize(features.float(), dim=1)
    unknown = is_fake & ~known
    noses = nose & unknown[:, None, None]
    # Sums serve as means: the cosine does not see their length.
    real = (unit * ~is_fake[:, None, None, None]).sum(dim=(0, 2, 3))
    forged = (unit * noses[:, None]).sum(dim=(0, 2, 3))
    anchors = torch.stack([F.normalize(real, dim=0), F.normalize(forged, dim=0)])
    to_real, to_forged = torch.einsum("ac,bchw->abhw", anchors, unit)
    labeled = unknown & (~is_fake).any() & noses.any()
    return PseudoLabels((to_real < to_forged) & labeled[:, None, None], labeled)


def nose_cells(batched_inputs: list[dict], grid: Size, device: torch.device) -> Tensor:
    """Find the cells that the nose touches, where a grid is laid over each image.

    Args:
        batched_inputs: rows; `nose_box` of a row is float (4,), x0, y0, x1, y1 in pixels of its `image`. Without one,
            the middle fifth of width and height is taken, which holds the nose of a face crop. A box beyond the image
            touches no cell.
        grid: (h, w).
        device: of the result.

    Returns:
        bool B×h×w.
    """
    boxes = to_device(torch.stack([_shares(row) for row in batched_inputs]), device)
    columns = _touched(boxes[:, 0], boxes[:, 2], grid[1])
    rows = _touched(boxes[:, 1], boxes[:, 3], grid[0])
    return rows[:, :, None] & columns[:, None, :]


def _shares(row: dict) -> Tensor:
    """Return (x0, y0, x1, y1) of a row's nose in shares of its image's width and height."""
    box = row.get("nose_box")
    if box is None:
        return torch.tensor(MIDDLE)
    height, width = row["image"].shape[-2:]
    return torch.as_tensor(box, dtype=torch.float32).cpu() / torch.tensor([width, height, width, height])


def _touched(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Say which of `count` equal parts of [0, 1] each of B intervals overlaps: bool B×count."""
    edges = torch.arange(count + 1, device=start.device)
    return (start[:, None] * count < edges[1:]) & (end[:, None] * count > edges[:-1])
