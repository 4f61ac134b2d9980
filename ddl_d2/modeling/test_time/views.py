"""Predicting an image from several views of it (other sizes, mirrored), by any system: test-time augmentation.

Rows have `image`, the plain view, and maybe `views`, the same image at other sizes (TEST.AUG.MIN_SIZES).

Shapes: `H, W` pixels of the original image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ddl_d2.modeling.postprocessing import map_output, original_size
from ddl_d2.modeling.test_time.windows import OnWindows


class OnViews(OnWindows):
    """A system that predicts each view of an image, and averages the predictions.

    In eval mode a row gives what every system gives, at the original size: `fake_score` and `forgery_map` are the means
    over the views, `instances` the regions of that map (as with tiles; those of a query decoder are not its queries).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        flip: bool = True,
        map_threshold: float = 0.5,
        instance_mode: str = "union",
        max_instances: int = 100,
    ) -> None:
        """Wrap a system.

        Args:
            model: the system; its mode (training or not) is kept.
            flip: see each view mirrored (left and right exchanged), too.
            map_threshold: of `map_instances`.
            instance_mode: of `map_instances`.
            max_instances: of `map_instances`.
        """
        # A view and its mirror image have one size, others have not: those two go through the system at once.
        super().__init__(model, batch_size=2 if flip else 1)
        self.flip = flip
        self.regions: dict[str, Any] = {"threshold": map_threshold, "mode": instance_mode, "limit": max_instances}

    def windows(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Make a row of each view, each followed by its mirror image."""
        height, width = original_size(row)
        found = []
        for image in (row["image"], *row.get("views", ())):
            found += [image, image.flip(-1)] if self.flip else [image]
        return [{"image": image, "height": height, "width": width} for image in found]

    def merge(self, row: dict[str, Any], outputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Average the predictions of an image's views."""
        scores: list[float] = []

        def maps() -> Iterator[Tensor]:
            for output in outputs:
                scores.append(float(output["fake_score"]))
                if "forgery_map" in output:  # else a system that only detects
                    yield output["forgery_map"]

        size = original_size(row)
        mean = self._mean(maps())
        merged: dict[str, Any] = {"instances": Instances(size)}
        if mean is not None:
            merged = map_output(row, mean, size, **self.regions)
        return merged | {"fake_score": math.fsum(scores) / len(scores)}

    def merge_maps(self, row: dict[str, Any], maps: Iterable[Tensor]) -> Tensor:
        """Average the maps of the views."""
        mean = self._mean(maps)
        if mean is None:
            raise ValueError("no maps were given: an image has at least one view")
        return mean

    def _mean(self, maps: Iterable[Tensor]) -> Tensor | None:
        """Average maps H×W, of which every second one is mirrored; None if there are none."""
        total: Tensor | None = None
        count = 0
        for number, one in enumerate(maps):
            upright = one.flip(-1) if self.flip and number % 2 else one
            total = torch.zeros_like(upright).add_(upright) if total is None else total.add_(upright)
            count += 1
        return None if total is None else total.div_(count)
