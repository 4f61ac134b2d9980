"""Applying a calibration: from a score to a likelihood ratio and one of three verdicts, with plain NumPy.

`ddl-d2 calibrate` makes the file (docs/metrics.md says what its figures mean); reading and applying it needs no more
than this module. A calibration holds for the weights and settings whose scores it was made from.

Legend: N scores.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddl_d2.errors import CalibrationError
from ddl_d2.predictions.likelihood_ratio import LikelihoodRatio, in_words, log10_odds
from ddl_d2.predictions.verdict import AUTHENTIC, FORGED, INCONCLUSIVE, Verdict

FORMAT = "ddl_d2 calibration 1"
"""The first entry of every calibration file."""


@dataclass(frozen=True)
class Calibration:
    """What a labeled corpus says about the scores of one model.

    Attributes:
        ratio: from a score to the log10 likelihood ratio of forged against real.
        false_alarm_rate: the largest expected share of real images among those called forged, 0..1.
        miss_rate: the largest expected share of forged images of which no forgery is reported, 0..1.
        forged_above: scores above it are rarer among real images than `false_alarm_rate`; None if the corpus has too
            few of them to say so of any score.
        none_below: scores below it are rarer among forged images than `miss_rate`; None likewise.
        thresholds: score threshold of each rate of false alarms, such as {"0.05": 0.31}.
        temperature: by which logits are divided to fit the labels best (Guo et al., ICML 2017).
        map_threshold: of the forgery map, the one with the best F1 on the corpus; None if it has no maps.
        corpus: its name.
        counts: numbers of "real" and "fake" images, "without_face" (left out), and "groups" (of people, say).
        weights_sha256: of the file of weights; "" if the store did not say.
        tensors_sha256: of the tensors in it, which is the same in whatever file they are; "" if not known.
        settings: what else a score depends on, by config key (`predictions.settings`).
        created: the date, YYYY-MM-DD.
        held_out: figures of the held-out check, as `ddl-d2 calibrate` prints them.
    """

    ratio: LikelihoodRatio
    false_alarm_rate: float
    miss_rate: float
    forged_above: float | None
    none_below: float | None
    thresholds: Mapping[str, float]
    temperature: float
    map_threshold: float | None
    corpus: str
    counts: Mapping[str, int]
    weights_sha256: str
    tensors_sha256: str
    settings: Mapping[str, Any]
    created: str
    held_out: Mapping[str, Any]

    def verdict(self, score: float) -> Verdict:
        """Decide on the score of one image, 0..1.

        The verdict is the split-conformal one that knows the classes apart (Vovk, 2012): "forged" if scores so high
        are rare among the corpus's real images and not so among its forged ones, and the other way round.
        """
        log10_lr = float(self.log10_lr(score)[0])
        high = self.forged_above is not None and score > self.forged_above
        low = self.none_below is not None and score < self.none_below
        if high and not low:
            label, why = (
                FORGED,
                f"scores this high are expected of at most {_percent(self.false_alarm_rate)} of real images",
            )
        elif low and not high:
            label, why = (
                AUTHENTIC,
                f"scores this low are expected of at most {_percent(self.miss_rate)} of forged images",
            )
        elif high:
            label, why = INCONCLUSIVE, "scores like this are rare among both real and forged images"
        else:
            label, why = INCONCLUSIVE, "scores like this are usual among both real and forged images"
        return Verdict(label, log10_lr, f"{why}; {in_words(log10_lr, self.ratio.limits, corpus=self.about_corpus)}")

    def log10_lr(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Compute the log10 likelihood ratios (N,) of N scores in [0, 1]: forged against real."""
        return self.ratio.log10(scores)

    def tempered(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Compute P(fake) of N scores after temperature scaling, in [0, 1]."""
        return 1 / (1 + 10 ** (-log10_odds(scores) / self.temperature))

    @property
    def about_corpus(self) -> str:
        """The corpus in words: its name and its numbers of images."""
        return f"{self.corpus} ({self.counts['fake']} forged and {self.counts['real']} real images)"

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name this calibration: of the sha256 of all of it."""
        return hashlib.sha256(self._text().encode()).hexdigest()[:16]

    def check_model(self, *, weights_sha256: str, tensors_sha256: str = "", settings: Mapping[str, Any]) -> None:
        """Refuse a model that this calibration was not made for.

        Args:
            weights_sha256: of the model's file of weights.
            tensors_sha256: of its tensors, "" if not known.
            settings: `predictions.settings.prediction_settings` of its config.

        Raises:
            CalibrationError: other weights, or another value of a setting that scores depend on.
        """
        same_tensors = self.tensors_sha256 and self.tensors_sha256 == tensors_sha256
        if not same_tensors and self.weights_sha256 != weights_sha256:
            raise CalibrationError(
                f"the calibration on {self.corpus} was made for other weights (sha256 {self.weights_sha256[:16]}..., "
                f"these have {weights_sha256[:16]}...): make one for these with `ddl-d2 calibrate`"
            )
        unlike = sorted(
            key for key in self.settings.keys() | settings.keys() if self.settings.get(key) != settings.get(key)
        )
        if unlike:
            told = ", ".join(f"{key} {settings.get(key)!r} (was {self.settings.get(key)!r})" for key in unlike[:5])
            raise CalibrationError(
                f"the calibration on {self.corpus} was made with other settings: {told}; predict with those, or make "
                "one for these with `ddl-d2 calibrate`"
            )

    def to_json(self) -> dict[str, Any]:
        """The content of the calibration file."""
        values = {name: value for name, value in vars(self).items() if name != "ratio"}
        return {"format": FORMAT, "likelihood_ratio": self.ratio.to_json(), **values}

    @classmethod
    def from_json(cls, content: Any, where: str) -> Calibration:
        """Make one of the content of a calibration file.

        Raises:
            CalibrationError: it is none; `where` says in the message what was read.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CalibrationError(f"{where}: not a calibration file of `ddl-d2 calibrate` ({FORMAT})")
        values = {name: value for name, value in content.items() if name not in ("format", "likelihood_ratio")}
        try:
            made = cls(ratio=LikelihoodRatio.from_json(content["likelihood_ratio"]), **values)
            limits = [made.forged_above, made.none_below, made.map_threshold]
            numbers = [made.temperature, made.false_alarm_rate, made.miss_rate, *made.thresholds.values()]
            whole = all(math.isfinite(x) for x in (*numbers, *(x for x in limits if x is not None)))
            whole = whole and {"real", "fake"} <= made.counts.keys() and isinstance(made.settings, dict)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CalibrationError(f"{where}: the calibration is damaged ({error}); make it anew") from error
        if not whole:
            raise CalibrationError(f"{where}: the calibration is damaged (a value is no number); make it anew")
        return made

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a calibration file.

        Raises:
            CalibrationError: it cannot be read, or is none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CalibrationError(f"{os.fspath(path)}: the calibration cannot be read: {error}") from error
        return cls.from_json(content, os.fspath(path))

    def _text(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True, allow_nan=False)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
