"""The processes that `benchmark_model.py` measures: one model each, told what to do by lines of JSON on stdin.

Every candidate has a process of its own, because the C library reads its allocator's settings once, at the start.
Between its turns a process waits for the next line.

Shapes: `B` images, `Q` queries, `H, W` pixels.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from ddl_d2.data.datasets import load_config
from ddl_d2.layers.ms_deform_attn import extension_status
from ddl_d2.modeling.test_time.folding import fold_norms
from ddl_d2.solver.build import build_optimizer
from ddl_d2.utils.malloc import keep_freed_memory
from ddl_d2.utils.precision import compile_parts

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "ddl_i"
SEED = 0


@dataclass(frozen=True)
class Job:
    """What one process computes; `weights` is the file that our model writes and the peer reads."""

    candidate: str
    mode: str
    backbone: str
    height: int
    width: int
    batch: int
    queries: int
    dtype: str
    device: str
    weights: str
    threads: int | None = None
    compile: bool = False
    keep_memory: bool = False
    fp32_stride: int = 32

    @property
    def training(self) -> bool:
        return self.mode == "training"

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")


def make_images(job: Job) -> Tensor:
    """Clouds with some noise: uint8 B×3×H×W. White noise alone would look the same everywhere to a network."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(job.batch, 3, job.height // 32 + 1, job.width // 32 + 1, generator=generator)
    clouds = F.interpolate(coarse, size=(job.height, job.width), mode="bicubic", align_corners=False)
    noise = torch.randn(clouds.shape, generator=generator) / 20
    return (255 * (clouds + noise)).clamp(0, 255).to(torch.uint8)


def make_masks(job: Job) -> Tensor:
    """One blob for each image, at a random place: bool B×1×H×W."""
    generator = torch.Generator().manual_seed(SEED + 1)
    coarse = F.interpolate(torch.rand(job.batch, 1, 4, 4, generator=generator), size=(job.height, job.width),
                           mode="bicubic", align_corners=False)  # fmt: skip
    levels = coarse.flatten(2)
    return coarse > levels.kthvalue(levels.shape[2] * 3 // 4, dim=2).values[..., None, None]


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


class Stopwatch:
    """Milliseconds, a GPU's work included."""

    def __init__(self, device: str):
        self.cuda = device == "cuda"

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return 1000 * time.perf_counter()

    @contextmanager
    def record(self, name: str, times: dict[str, list[float]]) -> Iterator[None]:
        start = self.now()
        yield
        times.setdefault(name, []).append(self.now() - start)

    def watch(self, name: str, module: nn.Module, times: dict[str, list[float]]) -> list:
        """Hooks that record every call of `module`."""
        started = []
        before = module.register_forward_pre_hook(lambda *_: started.append(self.now()))
        after = module.register_forward_hook(lambda *_: times.setdefault(name, []).append(self.now() - started.pop()))
        return [before, after]


def peak_memory(device: str, function: Callable[[], object]) -> dict[str, float]:
    """MiB in use before `function`, and the most that there were during it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return {"before": before / 2**20, "peak": torch.cuda.max_memory_allocated() / 2**20}
    before = _resident_mib("VmRSS")
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    function()
    return {"before": before, "peak": _resident_mib("VmHWM")}


def _resident_mib(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: the process's highest, in bytes on a Mac
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) / 1024


class Worker:
    """Answers the requests of `benchmark_model.py`: the public methods are the requests by name."""

    def build(self, **job) -> dict:
        self.job = Job(**job)
        if self.job.threads:
            torch.set_num_threads(self.job.threads)
        if self.job.keep_memory:
            keep_freed_memory()
        self.candidate = (OurModel if self.job.candidate == "ddl_d2" else Peer)(self.job)
        self.work = self.candidate.train if self.job.training else self.candidate.infer
        gpu = torch.cuda.get_device_name() if self.job.device == "cuda" else None
        op = extension_status()
        kernels = f"compiled, {op.cpu_capability} on CPUs" if op.available else f"not compiled ({op.reason})"
        return {"threads": torch.get_num_threads(), "gpu": gpu, "op": kernels}

    def predict(self, path: str) -> dict:
        """Write logits, masks and maps, as in inference, to `path`."""
        self.candidate.model.eval()
        outputs = self.candidate.predictions()
        outputs["maps"] = torch.stack(self.candidate.infer()).clamp(0, 1)
        torch.save({name: value.float().cpu() for name, value in outputs.items()}, path)
        self.candidate.model.train(self.job.training)
        return {}

    def step(self) -> dict:
        stopwatch, times = Stopwatch(self.job.device), {}
        with stopwatch.record("step", times):
            result = self.work()
        return {"ms": times["step"][0], "loss": result if self.job.training else None}

    def memory(self) -> dict:
        answer = {}
        mib = peak_memory(self.job.device, lambda: answer.update(self.step()))
        return answer | {"mib": mib}

    def profile(self, rounds: int) -> dict:
        return {"stages": self.candidate.profile(rounds)}


def main() -> int:
    # Answers have stdout for themselves; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(reply), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
