"""What a model says of an image.

Shapes: `H, W` pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.errors import ImageReadError
from ddl_d2.inference.summary import NO_FACE, ForgedRegion, PredictionSummary, forgery_map_of, summarize
from ddl_d2.io.image import write_png


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
        """P(fake), 0..1; of the whole image if a model of faces found none (see `verdict`), so worth little."""
        return self.summary.score

    @property
    def verdict(self) -> str:
        """Whether the score is above the threshold: "fake", else "real"; or "no face found" by a model of faces."""
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
            faces = [{"box": list(face["window"]), "score": face["fake_score"]} for face in self.output["faces"]]
            # Without a face the whole image stands in for one, which is none.
            whole = [0, 0, self.summary.width, self.summary.height]
            row["faces"] = [face for face in faces if self.verdict != NO_FACE or face["box"] != whole]
        return row

    def draw(self, *, title: str | None = None) -> np.ndarray:
        """The image, its forged pixels and its forgery map as one figure, uint8 H'×W'×3 RGB.

        Args:
            title: shown in the caption; by default the file's name.
        """
        from ddl_d2.inference.overlay import draw_prediction  # needs Detectron2, a result itself does not

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
        from ddl_d2.inference.overlay import draw_heat_map  # needs Detectron2, a result itself does not

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
