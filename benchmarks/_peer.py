"""transformers' model, as `benchmark_model.py` measures it.

Shapes: `B` images, `Q` queries, `H, W` pixels.
"""

from __future__ import annotations

import torch
from _job import CONFIGS, Job, make_images, make_masks
from torch import Tensor

from ddl_d2.data.datasets import load_config


class Peer:
    """transformers' Mask2Former with the weights that our model wrote."""

    def __init__(self, job: Job):
        from _mask2former_peer import build_peer, paint

        self.job, self.paint = job, paint
        self.model = build_peer(job.backbone, job.queries, torch.load(job.weights, weights_only=True))
        self.model.to(job.device).train(job.training)
        self.mean, self.std = (
            torch.tensor(values, device=job.device).view(-1, 1, 1) for values in _normalization(job.backbone)
        )
        self.images = make_images(job).to(job.device)
        self.masks = list(make_masks(job).float().to(job.device))
        self.classes = [torch.zeros(1, dtype=torch.int64, device=job.device) for _ in self.masks]
        if job.training:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05)

    def pixels(self) -> Tensor:
        return (self.images - self.mean) / self.std

    def infer(self) -> list[Tensor]:
        with torch.inference_mode(), self.job.autocast():
            outputs = self.model(pixel_values=self.pixels())
            size = (self.job.height, self.job.width)
            predictions = zip(outputs.masks_queries_logits, outputs.class_queries_logits, strict=True)
            return [self.paint(masks.float(), logits.float(), size) for masks, logits in predictions]

    def train(self) -> float:
        with self.job.autocast():
            loss = self.model(pixel_values=self.pixels(), mask_labels=self.masks, class_labels=self.classes).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)
        self.optimizer.step()
        return float(loss.detach())

    @torch.inference_mode()
    def predictions(self) -> dict[str, Tensor]:
        with self.job.autocast():
            outputs = self.model(pixel_values=self.pixels())
        return {"logits": outputs.class_queries_logits, "masks": outputs.masks_queries_logits}


def _normalization(backbone: str) -> tuple[list[float], list[float]]:
    cfg = load_config(CONFIGS / f"mask2former_{backbone}.yaml")
    return cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
