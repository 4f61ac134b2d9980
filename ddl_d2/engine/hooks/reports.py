"""Hooks that write what a training says of itself: metrics, unreadable files, images of predictions."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase, hooks

from ddl_d2.inference.overlay import draw_prediction
from ddl_d2.io.bad_files import BadFiles
from ddl_d2.io.rows import read_row_image

logger = logging.getLogger(__name__)


class TolerantWriter(hooks.PeriodicWriter):
    """Detectron2's writer of metrics, but a full disk does not end the training."""

    def after_step(self) -> None:
        """Write if it is due."""
        self._tolerantly(super().after_step)

    def after_train(self) -> None:
        """Write what is left, and close the writers."""
        self._tolerantly(super().after_train)

    @staticmethod
    def _tolerantly(write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            logger.error("Metrics cannot be written: %s. Training goes on", error)


class BadFileReport(HookBase):
    """Counts what training skipped as the scalar `num_bad_files`, and lists each once in `OUTPUT_DIR/metrics.json`.

    The list is a line of its own whenever there is something new: `iteration`, `num_bad_files` so far, and `bad_files`,
    the new ones with `image_id`, `file` and `reason`. For the main process.
    """

    def __init__(self, bad_files: BadFiles, output_dir: str) -> None:
        self.bad_files = bad_files
        self.path = os.path.join(output_dir, "metrics.json")
        self._listed = 0

    def before_train(self) -> None:
        """Pass over what a resumed run knew: that has been listed."""
        self._listed = len(self.bad_files.agreed)

    def after_step(self) -> None:
        """Count, and list what is new."""
        self.trainer.storage.put_scalar("num_bad_files", len(self.bad_files), smoothing_hint=False)
        self._list_new()

    def after_train(self) -> None:
        """List what is new: the step that found too many has not come to its end."""
        self._list_new()

    def _list_new(self) -> None:
        agreed = self.bad_files.agreed
        if len(agreed) == self._listed:
            return
        new = [{"image_id": b.image_id, "file": b.file, "reason": b.reason} for b in agreed[self._listed :]]
        line = {"iteration": self.trainer.iter, "num_bad_files": len(agreed), "bad_files": new}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        except OSError as error:
            logger.error("%s: %s. What was skipped is in the log", self.path, error.strerror)
        self._listed = len(agreed)


class PredictionImages(HookBase):
    """Shows in TensorBoard, every `period` steps, what the model sees in some images of a training batch."""

    def __init__(self, period: int, threshold: float, max_images: int = 4) -> None:
        """Show up to `max_images` images; a pixel is drawn as forged above `threshold`, in [0, 1)."""
        self.period = period
        self.threshold = threshold
        self.max_images = max_images
        self._batch: list[dict[str, Any]] | None = None

    def after_step(self) -> None:
        """Draw if it is due, and after the last step."""
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        if self._batch is None:
            # The same images each time, so that progress can be seen.
            self._batch = self.trainer.batch[: self.max_images]
        model = self.trainer.model
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                outputs = model([_as_trained_on(row) for row in self._batch])
        finally:
            model.train(was_training)
        for i, (row, output) in enumerate(zip(self._batch, outputs, strict=True)):
            image = draw_prediction(_pixels(row), output, self.threshold)
            name = f"predictions/{i}_{'fake' if row['is_fake'] else 'real'}"
            self.trainer.storage.put_image(name, np.ascontiguousarray(image.transpose(2, 0, 1)))


def _as_trained_on(row: dict[str, Any]) -> dict[str, Any]:
    """Have the prediction at the size that was trained on, not at that of the original file; tokens have no size."""
    if "image" not in row:
        return row
    height, width = row["image"].shape[-2:]
    return row | {"height": height, "width": width}


def _pixels(row: dict[str, Any]) -> np.ndarray:
    """Return the image that was trained on, uint8 H×W×3; of a row with cached tokens that is the file's."""
    return row["image"].permute(1, 2, 0).numpy() if "image" in row else read_row_image(row)
