"""How easily a verdict flips: what the model says of an image after twelve ways of being delivered.

Nobody knows which copy of an image they were sent. A verdict that does not outlive a recompression is not one to act
on, and here it becomes "inconclusive".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddl_d2.predictions.verdict import NO_FACE


@dataclass(frozen=True)
class Delivered:
    """What the model says of an image after one delivery.

    Attributes:
        delivery: in words, such as "JPEG of quality 30".
        score: P(fake); None where no face was found any more.
        verdict: as of any image.
        map_iou: how far the forged pixels are the same as without the delivery, its geometry undone: intersection
            over union in [0, 1] over what is still to be seen; 1 if neither has any.
    """

    delivery: str
    score: float | None
    verdict: str
    map_iou: float


@dataclass(frozen=True)
class Fragility:
    """A verdict beside those of the same image after each delivery.

    Attributes:
        verdict: of the image as it is.
        score: likewise.
        delivered: one for each delivery.
    """

    verdict: str
    score: float
    delivered: tuple[Delivered, ...]

    @property
    def flips(self) -> tuple[Delivered, ...]:
        """Those with another verdict; where no face is found any more there is none, so that nothing flips."""
        return tuple(one for one in self.delivered if one.verdict not in (self.verdict, NO_FACE))

    @property
    def weakest(self) -> Delivered | None:
        """The delivery that moves the score farthest, among those with another verdict if there are any.

        None if no face is found after any.
        """
        known = [one for one in self.flips or self.delivered if one.score is not None]
        return max(known, key=lambda one: abs((one.score or 0.0) - self.score), default=None)

    @property
    def holds(self) -> bool:
        """Whether no delivery flips the verdict."""
        return not self.flips

    @property
    def reason(self) -> str:
        """In a sentence: whether the verdict holds, and what is hardest on it."""
        weakest = self.weakest
        if weakest is None:
            return f"no face is found after any of {len(self.delivered)} deliveries"
        if self.holds:
            return (
                f'"{self.verdict}" holds under {len(self.delivered)} deliveries; the weakest is {weakest.delivery} '
                f"(score {self.score:.2f} to {weakest.score:.2f})"
            )
        return (
            f'"{self.verdict}" as it is, but not after {len(self.flips)} of {len(self.delivered)} deliveries; the '
            f'weakest is {weakest.delivery} ("{weakest.verdict}", score {self.score:.2f} to {weakest.score:.2f})'
        )

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        overlaps = [one.map_iou for one in self.delivered]
        return {
            "holds": self.holds,
            "verdict_as_it_is": self.verdict,
            "weakest": None if self.weakest is None else self.weakest.delivery,
            "reason": self.reason,
            "mean_map_iou": round(float(np.mean(overlaps)), 4),
            "lowest_map_iou": min(overlaps),
            "deliveries": [asdict(one) for one in self.delivered],
        }
