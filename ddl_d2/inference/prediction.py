"""What a model says of an image.

Shapes: `H, W` pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.faces.face import FaceFinder
from ddl_d2.inference.explanations import Explanation, explain
from ddl_d2.inference.fragility import Fragility
from ddl_d2.inference.summary import PredictionSummary, forgery_map_of, summarize
from ddl_d2.io.image import write_png
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.ddl_x import DdlXAnswer, make_answer
from ddl_d2.predictions.regions import ForgedRegion
from ddl_d2.predictions.verdict import INCONCLUSIVE, NO_FACE, says_forged


class Prediction:
    """The result for one image, or the reason why there is none.

    Attributes:
        file: where the image came from, if it came from a file; else "".
        image: uint8 H×W×3 RGB, as it was predicted; None for an image that could not be read.
        output: the model's own output, see `modeling.system`.
        error: why the image could not be read; None if all went well. The other attributes then raise it.
        fragility: how the verdict fares when the image is delivered in other ways; None if nobody looked (`weigh`).
        explanation: what is marked as forged, in words; None if nobody asked, or the verdict is another (`explain`).
    """

    def __init__(
        self,
        *,
        file: str = "",
        image: np.ndarray | None = None,
        output: Mapping[str, Any] | None = None,
        threshold: float = 0.5,
        map_threshold: float = 0.5,
        calibration: Calibration | None = None,
        error: ImageReadError | None = None,
    ) -> None:
        self.file, self.image, self.output, self.error = file, image, dict(output or {}), error
        self.fragility: Fragility | None = None
        self.explanation: Explanation | None = None
        self._summary = None
        if output is not None:
            self._summary = summarize(output, threshold, map_threshold, calibration=calibration)

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
        """What is said of the image: see `PredictionSummary.verdict`, and `reason` for why."""
        return self.summary.verdict

    @property
    def log10_lr(self) -> float | None:
        """Log10 likelihood ratio of forged against real; None without a calibration or a face."""
        return self.summary.log10_lr

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, in words."""
        return self.summary.reason

    def weigh(self, fragility: Fragility) -> None:
        """Keep how the verdict fares under deliveries; one that does not hold becomes "inconclusive"."""
        self.fragility = fragility
        if not fragility.holds:
            self._summary = replace(self.summary, verdict=INCONCLUSIVE, reason=fragility.reason)

    def explain(self, faces: FaceFinder) -> None:
        """Say what is marked as forged, if the verdict says forged: of other images the map has nothing to say.

        Args:
            faces: finds them in the image; with 68 landmarks, parts of faces are told apart.

        Raises:
            ImageReadError: the image could not be read.
        """
        summary = self.summary
        if says_forged(summary.verdict):
            assert self.image is not None  # noqa: S101  without an error there is an image
            self.explanation = explain(self.image, self.forgery_map > summary.map_threshold, faces(self.image))

    def ddl_x_answer(self) -> DdlXAnswer:
        """The answer for the DDL-X challenge, whose classes are two: fake is a score above the threshold."""
        summary = self.summary
        is_fake = summary.verdict != NO_FACE and summary.score > summary.threshold
        traces = f"No forged pixel is reported: {summary.reason}."
        if is_fake:
            share = f"{100 * summary.forged_share:.1f} % of the image"
            marked = f"Regions marked as forged: {len(summary.regions)}, {share}."
            traces = marked if self.explanation is None else f"{marked}\n{self.explanation.text}"
        boxes = [region.box for region in summary.regions]
        return make_answer(is_fake, boxes, height=summary.height, width=summary.width, traces=traces)

    @property
    def regions(self) -> tuple[ForgedRegion, ...]:
        """The forged regions, largest first."""
        return self.summary.regions

    @property
    def forgery_map(self) -> np.ndarray:
        """P(forged) of each pixel: float32 H×W, 0..1."""
        self.summary  # noqa: B018  raises the error
        return forgery_map_of(self.output)

    @property
    def reliability_map(self) -> np.ndarray:
        """How far views of the image agree on each pixel: float32 H×W, 1 where all do (TEST.UNCERTAINTY).

        Raises:
            InputError: the model was not asked for it.
        """
        self.summary  # noqa: B018  raises the error
        if "reliability_map" not in self.output:
            raise InputError("there is no reliability map: predict with TEST.UNCERTAINTY.ENABLED True")
        return np.asarray(self.output["reliability_map"].detach().cpu(), dtype=np.float32)

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
        if "score_spread" in self.output and self.verdict != NO_FACE:
            row["uncertainty"] = self._uncertainty()
        if self.explanation is not None:
            row["explanation"] = self.explanation.as_dict()
        if self.fragility is not None:
            row["fragility"] = self.fragility.as_dict()
        return row

    def _uncertainty(self) -> dict[str, float | None]:
        """The spread of the score, and how reliable the pixels called forged are on average; None if there are none."""
        values: dict[str, float | None] = {"score_spread": round(self.output["score_spread"], 6)}
        if "reliability_map" in self.output:
            forged = self.forgery_map > self.summary.map_threshold
            mean = float(self.reliability_map[forged].mean()) if forged.any() else None
            values["forged_reliability"] = None if mean is None else round(mean, 4)
        return values

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
            summary=summary,
        )

    def draw_heat_map(self) -> np.ndarray:
        """What the score rests on, uint8 H'×W'×3 RGB, if the output has a `heat_map` (`gradcam`)."""
        from ddl_d2.inference.overlay import draw_heat_map  # needs Detectron2, a result itself does not

        summary = self.summary
        assert self.image is not None  # noqa: S101  without an error there is an image
        return draw_heat_map(self.image, self.output, summary.threshold, title=Path(self.file).name, summary=summary)

    def save_overlay(self, path: str | Path) -> None:
        """Write `draw` as a PNG file.

        Raises:
            ImageReadError: the image could not be read, so there is nothing to draw.
            OSError: the file cannot be written.
        """
        write_png(path, self.draw())
