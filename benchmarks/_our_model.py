"""This project's model, as `benchmark_model.py` measures it.

Shapes: `B` images, `Q` queries, `H, W` pixels.
"""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

import torch
from _job import CONFIGS, SEED, Job, make_images, make_masks
from _stopwatch import Stopwatch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from ddl_d2.data.datasets import load_config
from ddl_d2.modeling.test_time.folding import fold_norms
from ddl_d2.solver.build import build_optimizer
from ddl_d2.utils.precision import compile_parts


class OurModel:
    """`ForgeryMask2Former` as its config builds it, without the image head, and with random weights."""

    def __init__(self, job: Job):
        self.job = job
        self.cfg = load_config(CONFIGS / f"mask2former_{job.backbone}.yaml", _options(job))
        torch.manual_seed(SEED)
        self.model = build_model(self.cfg)
        images = make_images(job)
        self.rows = [{"image": image, "height": job.height, "width": job.width} for image in images]
        for i, (row, mask) in enumerate(zip(self.rows, make_masks(job), strict=True)):
            instances = Instances((job.height, job.width), gt_classes=torch.zeros(1, dtype=torch.int64))
            instances.gt_masks = BitMasks(mask)
            row.update(instances=instances, is_fake=1, image_id=str(i))
        self._prepare_weights()
        self.model.train(job.training)
        self.optimizer = build_optimizer(self.cfg, self.model) if job.training else None
        if not job.training:
            fold_norms(self.model)  # as `build_trained_model` does
        if job.compile:
            compile_parts(self.model)

    def _prepare_weights(self) -> None:
        """The first of our processes writes the weights, the others, like the peer's, read them."""
        weights = Path(self.job.weights)
        if weights.exists():
            self.model.load_state_dict(torch.load(weights, weights_only=True))
            return
        make_lifelike(self.model, self.pixels())
        torch.save({name: value.cpu() for name, value in self.model.state_dict().items()}, weights)

    def pixels(self) -> Tensor:
        """The images as the network sees them, B×3×H×W."""
        images = torch.stack([row["image"] for row in self.rows]).to(self.model.device)
        return (images - self.model.pixel_mean) / self.model.pixel_std

    def infer(self) -> list[Tensor]:
        with torch.inference_mode(), self.job.autocast():
            return [output["forgery_map"] for output in self.model(self.rows)]

    def train(self) -> float:
        loss = self.forward()
        self.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def forward(self) -> Tensor:
        with self.job.autocast():
            return sum(self.model(self.rows).values())

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    @torch.inference_mode()
    def predictions(self) -> dict[str, Tensor]:
        """Class logits B×Q×2 and mask logits B×Q×h×w."""
        with self.job.autocast():
            outputs = self.model.sem_seg_head(self.model.encode(self.pixels()))
        return {"logits": outputs["pred_logits"], "masks": outputs["pred_masks"]}

    def _stages(self) -> dict[str, nn.Module]:
        head = self.model.sem_seg_head
        return {"backbone": self.model.backbone, "pixel decoder": head.pixel_decoder, "query decoder": head.predictor}

    def profile(self, rounds: int) -> dict[str, float]:
        """Median milliseconds of each stage; the forward's rest is the painting of the map, or the criterion."""
        times: dict[str, list[float]] = {}
        stopwatch = Stopwatch(self.job.device)
        hooks = []
        for name, module in self._stages().items():
            hooks += stopwatch.watch(name, module, times)
        for _ in range(rounds):
            self._profile_once(stopwatch, times)
        for hook in hooks:
            hook.remove()
        parts = {name: times.pop(name) for name in self._stages()}
        forward = times.pop("forward")
        rest = [whole - sum(values) for whole, *values in zip(forward, *parts.values(), strict=True)]
        times = parts | {"criterion" if self.job.training else "painting": rest} | times
        return {name: statistics.median(values) for name, values in times.items()}

    def _profile_once(self, stopwatch: Stopwatch, times: dict[str, list[float]]) -> None:
        if not self.job.training:
            with stopwatch.record("forward", times):
                self.infer()
            return
        with stopwatch.record("forward", times):
            loss = self.forward()
        with stopwatch.record("backward", times):
            self.backward(loss)
        with stopwatch.record("clip and optimizer", times):
            self.optimizer.step()


def _options(job: Job) -> list[str]:
    return [
        "MODEL.DETECTION.ENABLED", "False",
        "MODEL.TIMM.PRETRAINED", "",
        "MODEL.TIMM.DROP_PATH_RATE", "0.0",  # at random; the losses could not be compared
        "MODEL.RESNETS.NORM", "BN",  # one process: SyncBN would be the same
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", str(job.queries),
        "MODEL.DEVICE", job.device,
        "TEST.FP32_STRIDE", str(job.fp32_stride),
    ]  # fmt: skip


@torch.no_grad()
def make_lifelike(model: nn.Module, pixels: Tensor) -> None:
    """Random weights that behave as if they had been trained.

    Initial values hide differences: zero biases and offsets, position tables near zero, statistics that normalize
    nothing. So all small vectors get noise, BatchNorm the statistics of these pixels; and the queries say "no object",
    all but one in Q, or the sum of their masks would be clipped to a map that is 1 everywhere.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 or re.search("relative_position_bias_table|sampling_offsets|attention_weights", name):
            parameter += 0.1 * torch.randn(parameter.shape).to(parameter)
    head = model.sem_seg_head.predictor.class_embed
    head.bias[-1] += math.log(4 * model.sem_seg_head.predictor.query_feat.num_embeddings)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.backbone.train()(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
