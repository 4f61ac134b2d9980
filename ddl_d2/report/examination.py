"""Examining one file: the record as JSON values, and what its page shows besides."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.clip_prediction import ClipPrediction
from ddl_d2.inference.deliveries import fragility_of
from ddl_d2.inference.model import Model
from ddl_d2.inference.prediction import Prediction
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.guard import guard, read_content, regular_file
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.predictions.verdict import NO_FACE
from ddl_d2.report.credentials import read_anchors
from ddl_d2.report.detector_findings import image_findings, video_findings
from ddl_d2.report.file_findings import clip_file_findings, image_file_findings
from ddl_d2.report.findings import Finding, in_order, sha256_of
from ddl_d2.report.map_layer import map_layer, shown_image
from ddl_d2.report.model_facts import environment, model_facts
from ddl_d2.report.words import propositions
from ddl_d2.utils.text import printable

FORMAT = "ddl_d2 examination record 1"
"""The first entry of every record."""


@dataclass(frozen=True)
class Examination:
    """What was found in one file.

    Attributes:
        record: the record, JSON values.
        image: uint8 H×W×3 RGB as it is shown; None for a clip.
        layer: uint8 H×W×4 RGBA, the forgery map to put over it; None where there is none to show.
    """

    record: dict[str, Any]
    image: np.ndarray | None = None
    layer: np.ndarray | None = None


@dataclass(frozen=True)
class Examiner:
    """A model with what an examination needs besides.

    Attributes:
        model: the model.
        frames: of a clip, how many are looked at.
        name: who examines, for the record; "" for nobody named.
        trust: the file of trust anchors (PEM) that signatures of content credentials are held against; None for none.
        fragility: whether images are also examined as twelve deliveries would leave them.
    """

    model: Model
    frames: int = 32
    name: str = ""
    trust: Path | None = None
    fragility: bool = False

    def examine(self, path: Path, *, name: str = "") -> Examination:
        """Examine a file.

        Args:
            path: an image or a video.
            name: what the record calls it; "" for its path.

        Raises:
            ImageReadError: it cannot be read.
        """
        called = name or printable(path)
        if file_kind(path) == "video":
            return self._examine_clip(path, called)
        return self.examine_image(read_content(path), called)

    def examine_image(self, content: bytes, called: str) -> Examination:
        """Examine an image file that is in memory.

        Args:
            content: the file.
            called: what the record and errors call it.

        Raises:
            ImageReadError: it cannot be read.
        """
        try:
            prediction = self.model.predict(content)
        except ImageReadError as error:
            raise ImageReadError(called, error.reason) from error
        if self.fragility and prediction.verdict != NO_FACE:
            prediction.weigh(fragility_of(self.model, prediction))
        subject = _subject(called, "image", len(content), hashlib.sha256(content).hexdigest())
        found = image_findings(prediction, self.model.calibration)
        found += image_file_findings(
            content, called, max_pixels=self.model.cfg.INPUT.MAX_PIXELS, anchors=self._anchors()
        )
        return Examination(self._record(subject, found), *_drawn(prediction))

    def _examine_clip(self, path: Path, called: str) -> Examination:
        with guard(path), regular_file(path) as file:
            size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        prediction = self.model.predict_video(path, frames=self.frames)
        if isinstance(prediction, ClipPrediction):
            raise InputError(f"{called}: examination records are of systems that see images, and this one sees clips")
        found = video_findings(prediction)
        found += clip_file_findings(read_content(path), anchors=self._anchors())
        if file_sha256(path) != digest:
            raise ImageReadError(path, "was changed while it was examined")
        return Examination(self._record(_subject(called, "clip", size, digest), found))

    def _anchors(self) -> str:
        return "" if self.trust is None else read_anchors(self.trust)

    def _record(self, subject: dict[str, Any], found: Sequence[Finding]) -> dict[str, Any]:
        findings = [finding.as_dict() for finding in in_order(found)]
        weighed = propositions(subject["kind"])
        return {
            "format": FORMAT,
            "examined_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "examiner": self.name,
            "subject": subject,
            "propositions": weighed,
            "findings": findings,
            "findings_sha256": findings_sha256(subject["sha256"], weighed, findings),
            "model": model_facts(self.model),
            "calibration": None if self.model.calibration is None else self.model.calibration.to_json(),
            "settings": {"frames": self.frames, "fragility": self.fragility, "trust": _trust(self.trust)},
            "environment": environment(self.model.cfg.MODEL.DEVICE),
        }


def findings_sha256(subject: str, weighed: dict[str, str], findings: Sequence[dict[str, Any]]) -> str:
    """The sha256 that a repetition must give again: of the file's sha256, both propositions and all findings."""
    return sha256_of({"subject": subject, "propositions": weighed, "findings": list(findings)})


def _subject(file: str, kind: str, size: int, sha256: str) -> dict[str, Any]:
    return {"file": file, "kind": kind, "bytes": size, "sha256": sha256}


def _drawn(prediction: Prediction) -> tuple[np.ndarray, np.ndarray | None]:
    assert prediction.image is not None  # noqa: S101  it could be read
    if prediction.summary.verdict == NO_FACE:
        return shown_image(prediction.image), None
    return shown_image(prediction.image), map_layer(prediction.forgery_map, prediction.summary.map_threshold)


def _trust(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    return {"file": printable(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
