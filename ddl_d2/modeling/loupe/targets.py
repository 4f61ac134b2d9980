"""What Loupe's heads shall find, from a mapper's rows or from its own classifier.

Shapes: `B` images, `h, w` cells of the tokens' grid, `S` the side in pixels to which every image is stretched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddl_d2.modeling.mask2former.matcher import Targets
from ddl_d2.modeling.postprocessing import Size
from ddl_d2.modeling.preprocessing import is_known, stretched_maps
from ddl_d2.utils.transfer import to_device

_FORGED = 0
"""The one class of targets."""


def patch_labels(rows: list[dict[str, Any]], size: Size, grid: Size, device: torch.device) -> Tensor:
    """Return how forged each patch is: the mean of the mask stretched to `size`, float B×(h·w) in [0, 1].

    The mask is stretched without antialiasing, as published.
    """
    maps = stretched_maps(rows, size, device, antialias=False)
    return F.avg_pool2d(maps[:, None], (size[0] // grid[0], size[1] // grid[1])).flatten(1)


def query_targets(rows: list[dict[str, Any]], size: Size, device: torch.device) -> list[Targets]:
    """Return the targets of rows with `instances`: their masks stretched to `size`, each pixel as the nearest one."""
    targets = []
    for row in rows:
        found = row["instances"]
        masks = to_device(found.gt_masks.tensor, device)
        if len(masks) and tuple(masks.shape[-2:]) != size:
            masks = F.interpolate(masks[None].to(torch.uint8), size, mode="nearest-exact")[0].bool()
        targets.append(
            Targets(
                classes=to_device(found.gt_classes, device),
                masks=masks,
                image_id=str(row.get("image_id", row.get("file_name", "?"))),
                supervised=is_known(row) > 0,
            )
        )
    return targets


class PseudoLabels(NamedTuple):
    """What the classifier says of images without labels, for the segmentor to learn (test-time adaptation).

    Attributes:
        condition: float B, the score of each.
        masks: float B×h×w in [0, 1], the probabilities of its patches.
        has_target: bool B: the score is above the threshold, so the mask is a target; otherwise nothing is forged.
    """

    condition: Tensor
    masks: Tensor
    has_target: Tensor

    def targets(self, image_ids: list[str]) -> list[Targets]:
        """Return what the criterion takes."""
        classes = torch.full((1,), _FORGED, dtype=torch.int64, device=self.masks.device)
        return [
            Targets(classes=classes[:count], masks=mask[None][:count], image_id=image_id)
            for mask, count, image_id in zip(self.masks, self.has_target.int().tolist(), image_ids, strict=True)
        ]
