"""What a prediction says, in plain values: the numbers under an image and in a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.regions import ForgedRegion, forged_regions
from ddl_d2.predictions.verdict import NO_FACE, Verdict, plain_verdict


@dataclass(frozen=True)
class PredictionSummary:
    """A prediction in plain values.

    Attributes:
        score: P(fake), 0..1; without a face that of the whole image, which a model of faces was not made for.
        verdict: of a calibrated model "forged", "no forgery found" or "inconclusive"; else "fake" if the score is above
            the threshold, or "real"; "no face found" where a model of faces (INPUT.FACE_CROP) had none to look at.
        log10_lr: log10 likelihood ratio of forged against real; None without a calibration or a face.
        reason: of the verdict, in words; it begins with "uncalibrated" if there is no calibration.
        calibration: its fingerprint; None if there is none.
        threshold: of the score; without meaning for a calibrated model.
        map_threshold: of the forgery map; a pixel strictly above it counts as forged.
        forged_share: share of the pixels that count as forged, 0..1.
        height, width: of the image, pixels.
        regions: the forged blobs of at least 16 pixels, largest first, at most 50.
    """

    score: float
    verdict: str
    log10_lr: float | None
    reason: str
    calibration: str | None
    threshold: float
    map_threshold: float
    forged_share: float
    height: int
    width: int
    regions: tuple[ForgedRegion, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON; where no face was found `score` and `forged_share` are null and `regions` is empty."""
        values = asdict(self)
        if self.verdict == NO_FACE:
            values |= {"score": None, "forged_share": None, "regions": []}
        values["regions"] = [{**region, "box": list(region["box"])} for region in values["regions"]]
        return values


def decide(score: float, threshold: float, *, calibration: Calibration | None = None, has_face: bool = True) -> Verdict:
    """Decide by a calibration, or else by a plain threshold; see `PredictionSummary.verdict`."""
    if not has_face:
        return Verdict(NO_FACE, None, "no face was found, and the model was made for faces")
    return plain_verdict(score, threshold) if calibration is None else calibration.verdict(score)


def score_text(score: float | None) -> str:
    """A score as a column of a table: four digits, or a dash where no face was found."""
    return "  -   " if score is None else f"{score:.4f}"


def forgery_map_of(prediction: Mapping[str, Any]) -> np.ndarray:
    """The forgery map of a model's output as float32 H×W, on the CPU."""
    values = prediction["forgery_map"]
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def summarize(
    prediction: Mapping[str, Any],
    threshold: float = 0.5,
    map_threshold: float = 0.5,
    *,
    calibration: Calibration | None = None,
) -> PredictionSummary:
    """Summarize a model's output for one image (`fake_score`, `forgery_map`, maybe `has_face`)."""
    forgery_map = forgery_map_of(prediction)
    score = float(prediction["fake_score"])
    forged = forgery_map > map_threshold
    height, width = forged.shape
    has_face = bool(prediction.get("has_face", True))
    verdict = decide(score, threshold, calibration=calibration, has_face=has_face)
    return PredictionSummary(
        score=score,
        verdict=verdict.label,
        log10_lr=verdict.log10_lr,
        reason=verdict.reason,
        calibration=None if calibration is None else calibration.fingerprint,
        threshold=float(threshold),
        map_threshold=float(map_threshold),
        forged_share=float(forged.mean()),
        height=height,
        width=width,
        regions=forged_regions(forgery_map, forged),
    )
