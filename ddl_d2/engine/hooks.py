"""Training hooks beyond Detectron2's."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.engine import HookBase

from ddl_d2.inference.overlay import draw_prediction


class PredictionPictures(HookBase):
    """Every `period` steps, shows in TensorBoard what the model sees in some pictures of a training batch."""

    def __init__(self, period: int, threshold: float, max_pictures: int = 4):
        self.period = period
        self.threshold = threshold
        self.max_pictures = max_pictures
        self._batch: list[dict] | None = None

    def after_step(self) -> None:
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        if self._batch is None:
            # The same pictures each time, so that progress can be seen.
            self._batch = self.trainer.batch[: self.max_pictures]
        model = self.trainer.model
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                outputs = model([self._shown(row) for row in self._batch])
        finally:
            model.train(was_training)
        for i, (row, output) in enumerate(zip(self._batch, outputs, strict=True)):
            picture = draw_prediction(row["image"].permute(1, 2, 0).numpy(), output, self.threshold)
            name = f"predictions/{i}_{'fake' if row['is_fake'] else 'real'}"
            self.trainer.storage.put_image(name, np.ascontiguousarray(picture.transpose(2, 0, 1)))

    @staticmethod
    def _shown(row: dict) -> dict:
        # At the size that was trained on, not that of the original file.
        height, width = row["image"].shape[-2:]
        return row | {"height": height, "width": width}
