"""What is said of an image: a label, how strongly the score supports it, and why."""

from __future__ import annotations

from dataclasses import dataclass

FORGED, AUTHENTIC, INCONCLUSIVE = "forged", "no forgery found", "inconclusive"
CALIBRATED = (FORGED, AUTHENTIC, INCONCLUSIVE)
"""The verdicts of a calibrated model."""

FAKE, REAL = "fake", "real"
PLAIN = (FAKE, REAL)
"""The verdicts of a plain threshold."""

NO_FACE = "no face found"
"""The verdict of a model of faces on an image without one, calibrated or not."""


@dataclass(frozen=True)
class Verdict:
    """What is said of an image.

    Attributes:
        label: "forged", "no forgery found" or "inconclusive"; "fake" or "real" by a plain threshold; "no face found".
        log10_lr: log10 likelihood ratio of forged against real; None without a calibration or a face.
        reason: why, in words for a reader of the verdict.
    """

    label: str
    log10_lr: float | None
    reason: str


def says_forged(label: str) -> bool:
    """Whether a verdict says that the image is forged, calibrated or not."""
    return label in (FORGED, FAKE)


def plain_verdict(score: float, threshold: float) -> Verdict:
    """Decide by a plain threshold: "fake" above it, else "real"; the reason says that this is uncalibrated."""
    label, side = (FAKE, "above") if score > threshold else (REAL, "not above")
    return Verdict(label, None, f"uncalibrated: the score is {side} the threshold {threshold:g}")
