"""What a system said of the images of a dataset: its verdicts, their counts, and the operating point in words.

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ddl_d2.evaluation.functional.intervals import share_interval
from ddl_d2.evaluation.results import ImageResult
from ddl_d2.inference.summary import decide
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.verdict import AUTHENTIC, CALIBRATED, FAKE, FORGED, INCONCLUSIVE, NO_FACE, PLAIN, REAL, Verdict
from ddl_d2.report.held_out import HeldOut, judged


@dataclass(frozen=True)
class Judged:
    """The results of one system.

    Attributes:
        name: of the system.
        store: its predictions.
        rows: the N images, all with a label, sorted.
        calibration: what decides; None if the threshold does.
        threshold: a score above it is called fake, without a calibration; and a pixel above it forged, see
            `map_threshold`.
    """

    name: str
    store: PredictionStore
    rows: Sequence[ImageResult]
    calibration: Calibration | None
    threshold: float

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) 0 real, 1 fake."""
        return np.array([row.is_fake for row in self.rows], np.int64)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(N,) P(fake)."""
        return np.array([row.score for row in self.rows], np.float64)

    @cached_property
    def faced(self) -> NDArray[np.bool_]:
        """(N,) whether there was a face to look at, for a model of faces; of others always."""
        return np.array([row.has_face for row in self.rows], bool)

    @cached_property
    def verdicts(self) -> NDArray[np.str_]:
        """(N,) the labels of `verdict`."""
        if self.calibration is None:
            said = np.where(self.scores > self.threshold, FAKE, REAL)
        else:
            found = judged(self.calibration, self.labels, self.scores)
            said = np.where(found.forged, FORGED, np.where(found.none, AUTHENTIC, INCONCLUSIVE))
        return np.where(self.faced, said, NO_FACE)

    def verdict(self, index: int) -> Verdict:
        """What is said of one image, with its reason."""
        row = self.rows[index]
        return decide(float(self.scores[index]), self.threshold, calibration=self.calibration, has_face=row.has_face)

    def held_out(self) -> HeldOut | None:
        """What the calibration says of the images with a face; None without one, or of one class only."""
        labels = self.labels[self.faced]
        if self.calibration is None or not 0 < labels.sum() < len(labels):
            return None
        return judged(self.calibration, labels, self.scores[self.faced])

    def verdict_table(self) -> list[list[str]]:
        """Of each verdict: how many real images and fakes got it, with shares and their 95 % intervals."""
        possible = PLAIN if self.calibration is None else CALIBRATED
        names = [*possible, *([NO_FACE] if not self.faced.all() else [])]
        return [[name, *(_count(self.verdicts[self.labels == label] == name) for label in (0, 1))] for name in names]

    def operating_point(self) -> list[str]:
        """The operating point in sentences."""
        if self.calibration is not None:
            first = (
                f"Calibrated on {self.calibration.about_corpus}: a score above {_limit(self.calibration.forged_above)} "
                f"is called {FORGED}, below {_limit(self.calibration.none_below)} {AUTHENTIC}, all else {INCONCLUSIVE}."
            )
        else:
            first = f"Uncalibrated: a score above {self.threshold:g} is called {FAKE}, any other {REAL}."
        called = np.isin(self.verdicts, (FORGED, FAKE))
        alarms, found = (called[self.labels == label] for label in (0, 1))
        told = [first]
        if len(alarms):
            told.append(
                f"Of {len(alarms):,} real images {int(alarms.sum()):,} were called {_forged(self)}: {_told(alarms)}"
                f"{_one_in(alarms)}. These are the false alarms."
            )
        if len(found):
            told.append(
                f"Of {len(found):,} fakes {int(found.sum()):,} were called {_forged(self)}: {_told(found)}. "
                f"The other {int((~found).sum()):,} were not."
            )
        if len(self.faced) > self.faced.sum():
            told.append(f"No face was found in {int((~self.faced).sum()):,} of all: nothing is said of them.")
        return told


def _forged(one: Judged) -> str:
    return FAKE if one.calibration is None else FORGED


def _limit(score: float | None) -> str:
    return "no limit (too few images for one)" if score is None else f"{score:.4f}"


def _count(chosen: NDArray[np.bool_]) -> str:
    return f"{int(chosen.sum()):,} of {len(chosen):,}: {_share(chosen)}" if len(chosen) else "none"


def _share(chosen: NDArray[np.bool_]) -> str:
    share, low, high = (100 * value for value in share_interval(int(chosen.sum()), len(chosen)))
    return f"{share:.1f} % [{low:.1f}, {high:.1f}]"


def _told(chosen: NDArray[np.bool_]) -> str:
    share, low, high = (100 * value for value in share_interval(int(chosen.sum()), len(chosen)))
    return f"{share:.1f} % (95 % interval: {low:.1f} to {high:.1f} %)"


def _one_in(chosen: NDArray[np.bool_]) -> str:
    return f", about 1 in {round(len(chosen) / chosen.sum()):,}" if chosen.any() and chosen.mean() < 0.5 else ""
