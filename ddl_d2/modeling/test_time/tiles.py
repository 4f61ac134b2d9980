"""Predicting a large image from overlapping tiles at full resolution, by any system, in the memory that a tile takes.

Forensic traces are a few pixels wide and fade when a large image is shrunk to what fits in memory. In tiles it need
not be shrunk (INPUT.MIN_SIZE_TEST 0): of the whole image only its bytes and its map are held.

Shapes: `H, W` pixels of the image as the row holds it, `h, w` those of its tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ddl_d2.config.checks import check_tiles
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.heads import score_from_map
from ddl_d2.modeling.postprocessing import Size, map_output, original_size, to_original
from ddl_d2.modeling.test_time.windows import OnWindows, Window, inside, window_row


class OnTiles(OnWindows):
    """A system that sees images with a side longer than `size` in tiles, and puts the predictions together.

    In eval mode such a row (`image` uint8 3×H×W) gives what every system gives, at the original size of the image:
    `forgery_map`, the tiles' maps blended; `fake_score` from those of its tiles; `instances`, the regions of the
    blended map. A side no longer than a tile is not cut.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        size: int,
        overlap: float = 0.125,
        score: str = "max",
        image_score: str = "max",
        batch_size: int = 1,
        map_threshold: float = 0.5,
        instance_mode: str = "union",
        max_instances: int = 100,
    ) -> None:
        """Wrap a system.

        Args:
            model: the system; its mode (training or not) is kept.
            size: of a tile's sides, in pixels of the image as the system gets it (after the mapper's resizing).
            overlap: of neighboring tiles, at least, as a share of `size`, in [0, 0.5].
            score: how the image's score follows: from its tiles' by "max" (an image is fake if any part of it is; the
                more tiles, the higher real images score, too), "mean" or "top_tiles" (the mean of the highest tenth);
                or from the blended "map", by `image_score`.
            image_score: see `heads.score_from_map`.
            batch_size: tiles that the system gets at once.
            map_threshold: of `map_instances`.
            instance_mode: of `map_instances`.
            max_instances: of `map_instances`.

        Raises:
            ConfigError: as `check_tiles`.
        """
        super().__init__(model, batch_size=batch_size)
        check_tiles(size=size, overlap=overlap, score=score, batch_size=batch_size)
        self.size, self.overlap = size, round(overlap * size)
        self.score, self.image_score = score, image_score
        self.regions: dict[str, Any] = {"threshold": map_threshold, "mode": instance_mode, "limit": max_instances}

    def windows(self, row: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Make a row of each tile, without copying pixels; None if no side of the image is longer than a tile."""
        image: Tensor = row["image"]
        if max(image.shape[-2:]) <= self.size:
            return None
        return [window_row(inside(image, tile.window), tile.window) for tile in self._grid(_input_size(row))]

    def merge(self, row: dict[str, Any], outputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Make the prediction of an image from those of its tiles."""
        size = _input_size(row)
        scores: list[float] = []
        blended: Tensor | None = None
        for tile, output in zip(self._grid(size), outputs, strict=True):
            scores.append(float(output["fake_score"]))
            if "forgery_map" in output:  # else a system that only detects
                blended = tile.added(output["forgery_map"], blended, size)
        if blended is None:
            merged: dict[str, Any] = {"instances": Instances(original_size(row))}
        else:
            merged = map_output(row, blended, size, **self.regions)
        return merged | {"fake_score": self._score(scores, merged.get("forgery_map"))}

    def merge_maps(self, row: dict[str, Any], maps: Iterable[Tensor]) -> Tensor:
        """Blend the maps of the tiles, at the image's original size."""
        size = _input_size(row)
        blended: Tensor | None = None
        for tile, part in zip(self._grid(size), maps, strict=True):
            blended = tile.added(part, blended, size)
        if blended is None:
            raise ValueError("no maps were given: an image that is cut has tiles")
        return to_original(blended, size, original_size(row))

    def _score(self, scores: list[float], forgery_map: Tensor | None) -> float:
        if self.score != "map":
            return tile_score(scores, self.score)
        if forgery_map is None:
            raise ConfigError("TEST.TILE.SCORE is 'map', but the system only detects: choose max, mean or top_tiles")
        return score_from_map(forgery_map, self.image_score)

    def _grid(self, size: Size) -> Iterator[Tile]:
        """Yield the tiles of an image, row by row."""
        down, across = (cuts(side, self.size, self.overlap) for side in size)
        for (y0, y1, row_weights), (x0, x1, column_weights) in itertools.product(down, across):
            yield Tile((x0, y0, x1, y1), row_weights, column_weights)


class Tile(NamedTuple):
    """A window, and how much its pixels count where maps are blended.

    Attributes:
        window: where it lies.
        row_weights: of its h rows, see `cuts`.
        column_weights: of its w columns.
    """

    window: Window
    row_weights: Tensor
    column_weights: Tensor

    def added(self, part: Tensor, whole: Tensor | None, size: Size) -> Tensor:
        """Add the tile's map h×w, weighted, to `whole` in place (None: zeros of `size`); returns it."""
        whole = part.new_zeros(size) if whole is None else whole
        inside(whole, self.window).addcmul_(part, torch.outer(self.row_weights, self.column_weights).to(part))
        return whole


def cuts(length: int, size: int, overlap: int) -> list[tuple[int, int, Tensor]]:
    """Cut a side into as few tiles as overlap enough, spread evenly.

    Args:
        length: of the side, in pixels.
        size: of a tile.
        overlap: of neighboring tiles, at least.

    Returns:
        (first pixel, the one after the last, weights) of each; one tile, the whole side, if that is no longer. Weights,
        float32, one for each pixel of the tile, are linear where two tiles overlap, low towards the edge; those of one
        pixel of the side sum to 1. So a blended map has no seam, and a constant one stays constant.
    """
    size = min(size, length)
    steps = -(-(length - size) // (size - overlap)) if length > size else 0
    starts = [i * (length - size) // max(1, steps) for i in range(steps + 1)]
    # A roof over each tile, 1 at its edges. Of two that overlap by up to half, one falls as the other rises: their sum
    # is constant there, and the share of each is linear.
    roof = torch.arange(1.0, size + 1, dtype=torch.float64)
    roof = torch.minimum(roof, roof.flip(0))
    total = roof.new_zeros(length)
    for start in starts:
        total[start : start + size] += roof
    return [(start, start + size, (roof / total[start : start + size]).float()) for start in starts]


def tile_score(scores: Sequence[float], rule: str) -> float:
    """Make P(fake) of an image from those of its tiles (at least one); for the rules see `OnTiles`."""
    count = {"max": 1, "mean": len(scores), "top_tiles": max(1, len(scores) // 10)}[rule]
    return math.fsum(sorted(scores, reverse=True)[:count]) / count


def _input_size(row: dict[str, Any]) -> Size:
    return row["image"].shape[-2], row["image"].shape[-1]
