"""Rules that make one score of several."""

from __future__ import annotations

from collections.abc import Sequence

FACE_SCORES = ("confident", "mean", "max")


def face_score(scores: Sequence[float], rule: str) -> float:
    """Make P(fake) of an image from those of its faces.

    Args:
        scores: of each face; at least one.
        rule: "mean", "max", or "confident": the mean of the faces called fake (>= 0.5) if there are any, or else of
            all; as LFDL (system S2) does it.
    """
    if rule == "max":
        return max(scores)
    chosen = [score for score in scores if score >= 0.5] if rule == "confident" else []
    chosen = chosen or list(scores)
    return sum(chosen) / len(chosen)
