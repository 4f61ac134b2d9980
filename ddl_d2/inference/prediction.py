"""What a model says of an image: a `Prediction`, and its numbers in plain values.

Shapes: `H, W` pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddl_d2.errors import ImageReadError
from ddl_d2.io.image import write_png

_MAX_REGIONS = 50
_MIN_REGION_AREA = 16


@dataclass(frozen=True)
class ForgedRegion:
    """One 8-connected blob of forged pixels.

    Attributes:
        box: (x0, y0, x1, y1) pixels of the original image, x1 and y1 just outside.
        area: pixels.
        mean_probability: mean of the forgery map over the blob, 0..1.
    """

    box: tuple[int, int, int, int]
    area: int
    mean_probability: float


@dataclass(frozen=True)
class PredictionSummary:
    """A prediction in plain values.

    Attributes:
        score: P(fake), 0..1.
        verdict: "fake" if the score is above the threshold, else "real".
        threshold: of the score.
        map_threshold: of the forgery map; a pixel strictly above it counts as forged.
        forged_share: share of the pixels that count as forged, 0..1.
        height, width: of the image, pixels.
        regions: the forged blobs of at least 16 pixels, largest first, at most 50.
    """

    score: float
    verdict: str
    threshold: float
    map_threshold: float
    forged_share: float
    height: int
    width: int
    regions: tuple[ForgedRegion, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        values = asdict(self)
        values["regions"] = [{**region, "box": list(region["box"])} for region in values["regions"]]
        return values


def forgery_map_of(prediction: Mapping[str, Any]) -> np.ndarray:
    """The forgery map of a model's output as float32 H×W, on the CPU."""
    values = prediction["forgery_map"]
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def summarize(prediction: Mapping[str, Any], threshold: float = 0.5, map_threshold: float = 0.5) -> PredictionSummary:
    """Summarize a model's output for one image (`fake_score`, `forgery_map`)."""
    forgery_map = forgery_map_of(prediction)
    score = float(prediction["fake_score"])
    forged = forgery_map > map_threshold
    height, width = forged.shape
    return PredictionSummary(
        score=score,
        verdict="fake" if score > threshold else "real",
        threshold=float(threshold),
        map_threshold=float(map_threshold),
        forged_share=float(forged.mean()),
        height=height,
        width=width,
        regions=forged_regions(forgery_map, forged),
    )


def forged_regions(forgery_map: np.ndarray, forged: np.ndarray) -> tuple[ForgedRegion, ...]:
    """The blobs of `forged` (bool H×W), largest first; see `PredictionSummary.regions`."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(forged.astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:_MAX_REGIONS]
    regions = []
    for i in order:
        x, y, width, height, area = (int(v) for v in stats[i])
        if area < _MIN_REGION_AREA:
            break
        window = (slice(y, y + height), slice(x, x + width))
        mean = float(forgery_map[window][labels[window] == i].mean())
        regions.append(ForgedRegion((x, y, x + width, y + height), area, round(mean, 4)))
    return tuple(regions)


class Prediction:
    """The result for one image, or the reason why there is none.

    Attributes:
        file: where the image came from, if it came from a file; else "".
        image: uint8 H×W×3 RGB, as it was predicted; None for an image that could not be read.
        output: the model's own output, see `modeling.system`.
        error: why the image could not be read; None if all went well. The other attributes then raise it.
    """

    def __init__(
        self,
        *,
        file: str = "",
        image: np.ndarray | None = None,
        output: Mapping[str, Any] | None = None,
        threshold: float = 0.5,
        map_threshold: float = 0.5,
        error: ImageReadError | None = None,
    ) -> None:
        self.file, self.image, self.output, self.error = file, image, dict(output or {}), error
        self._summary = None if output is None else summarize(output, threshold, map_threshold)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Prediction({self.file!r}, error={self.error.reason!r})"
        return f"Prediction({self.file!r}, fake_score={self.fake_score:.4f}, verdict={self.verdict!r})"

    @property
    def summary(self) -> PredictionSummary:
        """All numbers in plain values. Raises ImageReadError if the image could not be read."""
        if self.error is not None:
            raise self.error
        assert self._summary is not None  # noqa: S101  without an error there is an output
        return self._summary

    @property
    def fake_score(self) -> float:
        """P(fake), 0..1."""
        return self.summary.score

    @property
    def verdict(self) -> str:
        """Whether the score is above the threshold: "fake", else "real"."""
        return self.summary.verdict

    @property
    def regions(self) -> tuple[ForgedRegion, ...]:
        """The forged regions, largest first."""
        return self.summary.regions

    @property
    def forgery_map(self) -> np.ndarray:
        """P(forged) of each pixel: float32 H×W, 0..1."""
        self.summary  # noqa: B018  raises the error
        return forgery_map_of(self.output)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values: `file`, and either `error` or the numbers of `PredictionSummary`."""
        if self.error is not None:
            return {"file": self.file, "error": self.error.reason}
        row = {"file": self.file, **self.summary.as_dict()}
        if "faces" in self.output:
            row["faces"] = [{"box": list(face["window"]), "score": face["fake_score"]} for face in self.output["faces"]]
        return row

    def draw(self, *, title: str | None = None) -> np.ndarray:
        """The image, its forged pixels and its forgery map as one figure, uint8 H'×W'×3 RGB.

        Args:
            title: shown in the caption; by default the file's name.
        """
        from ddl_d2.inference.overlay import draw_prediction

        summary = self.summary
        assert self.image is not None  # noqa: S101  without an error there is an image
        return draw_prediction(
            self.image,
            self.output,
            summary.threshold,
            map_threshold=summary.map_threshold,
            title=Path(self.file).name if title is None else title,
        )

    def draw_heat_map(self) -> np.ndarray:
        """What the score rests on, uint8 H'×W'×3 RGB, if the output has a `heat_map` (`gradcam`)."""
        from ddl_d2.inference.overlay import draw_heat_map

        summary = self.summary
        assert self.image is not None  # noqa: S101  without an error there is an image
        return draw_heat_map(self.image, self.output, summary.threshold, title=Path(self.file).name)

    def save_overlay(self, path: str | Path) -> None:
        """Write `draw` as a PNG file.

        Raises:
            ImageReadError: the image could not be read, so there is nothing to draw.
            OSError: the file cannot be written.
        """
        write_png(path, self.draw())
