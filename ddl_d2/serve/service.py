"""What the service does with an upload: examine it, answer, forget it."""

from __future__ import annotations

import dataclasses
import io
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddl_d2.report.chain import Chain
from ddl_d2.report.detector_findings import verdict_of
from ddl_d2.report.examination import Examination, Examiner
from ddl_d2.report.html import data_uri
from ddl_d2.report.record_page import add_record
from ddl_d2.report.words import headline, meaning, tone
from ddl_d2.serve.limits import Limits, RefusedRequestError
from ddl_d2.serve.upload import kind_of_upload


class Service:
    """Models that examine uploads.

    Attributes:
        examiners: by the models' names; empty until `load` has been called.
        error: why they could not be loaded; None if they could, or are not yet.
        on_error: called when `error` has been set.
    """

    def __init__(self, load: Callable[[], Mapping[str, Examiner]], limits: Limits | None = None) -> None:
        """Make a service that is not ready.

        Args:
            load: loads the models; called once, by `load`.
            limits: what is taken at most.
        """
        self.limits = limits or Limits()
        self.examiners: Mapping[str, Examiner] = {}
        self.error: Exception | None = None
        self.on_error: Callable[[], None] = lambda: None
        self._load = load

    def load(self) -> None:
        """Load the models; what goes wrong is kept in `error`."""
        try:
            self.examiners = self._load()
        except Exception as error:  # noqa: BLE001  whoever started the service raises it
            self.error = error
            self.on_error()

    def models(self) -> list[dict[str, Any]]:
        """What there is, as JSON values."""
        return [
            {"name": name, "about": one.model.about, "calibrated": one.model.calibration is not None}
            for name, one in self.examiners.items()
        ]

    def predict(self, content: bytes, name: str, model: str, fragility: bool) -> dict[str, Any]:
        """Examine an upload; returns the answer as JSON values.

        Args:
            content: the file.
            name: what it is called.
            model: one of `examiners`; "" for the first.
            fragility: whether an image is also examined as twelve deliveries leave it.

        Raises:
            RefusedRequestError: what cannot be taken.
            ImageReadError: it cannot be read.
        """
        started = time.perf_counter()
        done = self._examine(content, name, model, fragility)
        answer = answer_of(done)
        return answer | {"seconds": round(time.perf_counter() - started, 2)}

    def record(self, content: bytes, name: str, model: str, fragility: bool) -> bytes:
        """Examine an upload; returns a ZIP of its record, page and chain. Raises as `predict`."""
        done = self._examine(content, name, model, fragility)
        packed = io.BytesIO()
        with tempfile.TemporaryDirectory(prefix="ddl_d2-") as folder:
            add_record(Chain.open(folder), done, Path(name))
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(Path(folder).iterdir()):
                    archive.write(path, f"record/{path.name}")
        return packed.getvalue()

    def _examine(self, content: bytes, name: str, model: str, fragility: bool) -> Examination:
        examiner = dataclasses.replace(self._examiner(model), fragility=fragility)
        if kind_of_upload(content, self.limits) == "image":
            return examiner.examine_image(content, name)
        with tempfile.TemporaryDirectory(prefix="ddl_d2-") as folder:
            path = Path(folder) / "clip.mp4"
            path.write_bytes(content)
            return examiner.examine(path, name=name)

    def _examiner(self, model: str) -> Examiner:
        if not self.examiners:
            raise RefusedRequestError(503, "not ready: the models are being loaded")
        try:
            return self.examiners[model] if model else next(iter(self.examiners.values()))
        except KeyError:
            known = ", ".join(self.examiners)
            raise RefusedRequestError(422, f"there is no model of this name (there: {known})") from None


def answer_of(done: Examination) -> dict[str, Any]:
    """What the service answers, as JSON values: the verdict in words, the figures, all findings, and images."""
    record = done.record
    found = {finding["name"]: finding["value"] for finding in record["findings"]}
    verdict, subject = verdict_of(record["findings"]), record["subject"]
    return {
        **subject,
        "verdict": verdict,
        "headline": headline(verdict),
        "meaning": meaning(verdict, subject["kind"]),
        "tone": tone(verdict),
        "score": found["score"],
        "log10_lr": (found.get("verdict") or {}).get("log10_lr"),
        "faces": found.get("faces") or [],
        "frames": found.get("frames") or [],
        "fragility": found.get("fragility"),
        "regions": (found.get("forgery_map") or {}).get("regions", []),
        "size": found.get("image_size"),
        "findings": record["findings"],
        "findings_sha256": record["findings_sha256"],
        "model": {name: record["model"][name] for name in ("name", "weights_sha256", "threshold", "map_threshold")},
        "images": {
            "image": None if done.image is None else data_uri(done.image, quality=90),
            "layer": None if done.layer is None else data_uri(done.layer),
        },
    }
