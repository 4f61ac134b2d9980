"""Predicting an image from several views of it (other sizes, mirrored), by any system: test-time augmentation.

Rows have `image`, the plain view, and maybe `views`, the same image at other sizes (TEST.AUG.MIN_SIZES); maybe also
`spread_views`, which say how far views differ and nothing else (TEST.UNCERTAINTY).

Shapes: `H, W` pixels of the original image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ddl_d2.modeling.postprocessing import map_output, original_size
from ddl_d2.modeling.test_time.windows import OnWindows


class View(NamedTuple):
    """One look at an image.

    Attributes:
        image: uint8 3×h×w, not yet mirrored.
        mirrored: whether the system sees it mirrored (left and right exchanged).
        counts: whether score and map are means over it, too; else it only counts for the spread.
    """

    image: Tensor
    mirrored: bool
    counts: bool


class OnViews(OnWindows):
    """A system that predicts each view of an image, and averages the predictions.

    In eval mode a row gives what every system gives, at the original size: `fake_score` and `forgery_map` are the means
    over the views, `instances` the regions of that map (as with tiles; those of a query decoder are not its queries).
    With `spread` also `score_spread`, the standard deviation of the scores over all views, and `reliability_map` H×W:
    1 - 2 × the standard deviation of a pixel's values, 1 where all views agree and 0 where half say 0 and half 1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        flip: bool = True,
        spread: bool = False,
        map_threshold: float = 0.5,
        instance_mode: str = "union",
        max_instances: int = 100,
    ) -> None:
        """Wrap a system.

        Args:
            model: the system; its mode (training or not) is kept.
            flip: average over each view mirrored (left and right exchanged), too.
            spread: say how far views differ; each is then seen mirrored, and `spread_views` are seen.
            map_threshold: of `map_instances`.
            instance_mode: of `map_instances`.
            max_instances: of `map_instances`.
        """
        # A view and its mirror image have one size, others have not: those two go through the system at once.
        super().__init__(model, batch_size=2 if flip else 1)
        self.flip, self.spread = flip, spread
        self.regions: dict[str, Any] = {"threshold": map_threshold, "mode": instance_mode, "limit": max_instances}

    def views(self, row: dict[str, Any]) -> list[View]:
        """List the views of a row: those that count first, each followed by its mirror image if that counts."""
        sides = (False, True) if self.flip else (False,)
        found = [View(image, side, True) for image in (row["image"], *row.get("views", ())) for side in sides]
        if self.spread:
            found += [] if self.flip else [View(row["image"], True, False)]
            found += [View(image, side, False) for image in row.get("spread_views", ()) for side in (False, True)]
        return found

    def windows(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Make a row of each view."""
        height, width = original_size(row)
        return [
            {"image": view.image.flip(-1) if view.mirrored else view.image, "height": height, "width": width}
            for view in self.views(row)
        ]

    def merge(self, row: dict[str, Any], outputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Average the predictions of an image's views."""
        views = self.views(row)
        scores: list[float] = []
        mean, spread = _Mean(), _Spread()
        for view, output in zip(views, outputs, strict=True):
            scores.append(float(output["fake_score"]))
            if "forgery_map" in output:  # else a system that only detects
                upright = _upright(output["forgery_map"], view)
                if view.counts:
                    mean.add(upright)
                if self.spread:
                    spread.add(upright)
        size = original_size(row)
        merged: dict[str, Any] = {"instances": Instances(size)}
        if mean.count:
            merged = map_output(row, mean.value(), size, **self.regions)
        if self.spread:
            merged["score_spread"] = float(torch.tensor(scores, dtype=torch.float64).std(correction=0))
        if spread.mean.count:
            merged["reliability_map"] = spread.reliability()
        counted = scores[: sum(view.counts for view in views)]
        return merged | {"fake_score": math.fsum(counted) / len(counted)}

    def merge_maps(self, row: dict[str, Any], maps: Iterable[Tensor]) -> Tensor:
        """Average the maps of the views that count."""
        mean = _Mean()
        for view, one in zip(self.views(row), maps, strict=True):
            if view.counts:
                mean.add(_upright(one, view))
        return mean.value()


class _Mean:
    """The mean of maps H×W that are given one at a time."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, one: Tensor) -> None:
        self.total = torch.zeros_like(one).add_(one) if self.total is None else self.total.add_(one)
        self.count += 1

    def value(self) -> Tensor:
        assert self.total is not None  # noqa: S101  an image has at least one view
        return self.total / self.count


class _Spread:
    """How far maps H×W that are given one at a time differ."""

    def __init__(self) -> None:
        self.mean, self.square = _Mean(), _Mean()

    def add(self, one: Tensor) -> None:
        self.mean.add(one.double())
        self.square.add(one.double().square())

    def reliability(self) -> Tensor:
        """1 - 2 × the standard deviation of each pixel, float32 in [0, 1]."""
        variance = self.square.value() - self.mean.value().square()
        return (1 - 2 * variance.clamp_min(0).sqrt()).clamp(0, 1).float()


def _upright(one: Tensor, view: View) -> Tensor:
    return one.flip(-1) if view.mirrored else one
