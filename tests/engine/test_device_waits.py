"""How often a training step waits for its device.

On a CPU nothing waits, so a stand-in counts what would on a GPU: reading a number (`item`, `bool`, `tolist`), copies to
the host (`cpu`), copies to the device that are not `non_blocking`, and operators whose output's size is in the data.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddl_d2.data.targets import forgery_mask_to_instances
from ddl_d2.engine.step import TrainingStep
from ddl_d2.solver.build import build_optimizer
from ddl_d2.solver.ema import AveragedWeights

MOST = 3
"""Waits of a step that is not logged: one for the matching's costs, one for whether all is finite, one to spare."""

_SIZED_BY_DATA = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")


def _where() -> str:
    frames = [f for f in traceback.extract_stack() if "/ddl_d2/" in f.filename or "/site-packages/timm" in f.filename]
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "elsewhere"


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _SIZED_BY_DATA or masks:
            self.found[f"{name} {_where()}"] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        to_a_device = any(isinstance(arg, torch.device) for arg in args) or "device" in kwargs
        # torch brings the norms of gradients to the device that they are on.
        own = not sys._getframe(1).f_code.co_filename.endswith("/torch/nn/utils/clip_grad.py")
        copies = name == "to" and to_a_device and not kwargs.get("non_blocking", False) and own
        made = name in ("tensor", "as_tensor") and kwargs.get("device") is not None
        if name in ("tolist", "cpu", "cuda") or copies or made:
            self.found[f"{name} {_where()}"] += 1
        return func(*args, **kwargs)


@contextlib.contextmanager
def counted_waits():
    found: Counter = Counter()
    with _Operators(found), _Calls(found):
        yield found


def test_the_stand_in_sees_what_waits():
    x, where = torch.arange(4.0), torch.device("cpu")
    for wait in (
        x[0].item, lambda: bool(x[0] > 1), lambda: float(x[1]), x.tolist, x.cpu, x.nonzero, lambda: x[x > 1],
        lambda: x.to(where), lambda: x.to(device="cpu"), lambda: torch.tensor([1.0], device=where),
        lambda: x.masked_select(x > 1), lambda: x.unique(),
    ):  # fmt: skip
        with counted_waits() as found:
            wait()
        assert found.total() >= 1, wait
    with counted_waits() as found:
        x.to(where, non_blocking=True), torch.tensor([1.0]), x.to(torch.bfloat16), x[torch.tensor([0, 2])], x * 2
    assert found.total() == 0


def _row(number: int, regions: int) -> dict:
    mask = np.zeros((64, 96), dtype=bool)
    for i in range(regions):
        mask[4 + 20 * i : 18 + 20 * i, 10:40] = True
    return {
        "image": torch.from_numpy(np.random.default_rng(number).integers(0, 256, (3, 64, 96), dtype=np.uint8)),
        "is_fake": int(regions > 0),
        "instances": forgery_mask_to_instances(mask, mode="connected_components"),
        "forgery_mask": torch.from_numpy(mask),
        "localization_valid": True,
        "image_id": f"{number}.png",
        "height": 64,
        "width": 96,
    }


def _step(cfg, device="cpu", **options):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    # Real images, one region, several: each is matched in its own way.
    batch = [_row(i, regions) for i, regions in enumerate((0, 1, 2, 3, 1, 0, 2, 1))]
    averaged = AveragedWeights(model, 0.9)
    step = TrainingStep(
        model, [batch] * 10, build_optimizer(cfg, model), precision="bfloat16", seed=lambda: 1, log_period=4, **options
    )
    return step, averaged


CONFIGS = ["ddl_i/mask2former_swin_tiny.yaml", "quickstart/mask2former_efficientnet_lite0.yaml"]
OTHERS = [
    "two_cores/swin_unet_efficientnet_lite0.yaml",
    "two_cores/lfdl_efficientnet_lite0.yaml",
    "two_cores/mesorch_efficientnet_lite0.yaml",
    "release/eyes_lite0.yaml",
    "two_cores/segmentor_efficientnet_lite0.yaml",
]


@pytest.mark.parametrize("config", CONFIGS + OTHERS)
def test_a_step_waits_at_most_three_times(config, tiny_cfg):
    step, averaged = _step(tiny_cfg("MODEL.TIMM.PRETRAINED", "", config=config))
    with EventStorage() as storage:
        step.run_step()  # it meets its sizes for the first time
        step.iter = 1
        with counted_waits() as found:
            step.run_step()
            averaged.update()
    assert found.total() <= MOST, dict(found)
    assert "total_loss" not in storage.latest()


def test_gradient_accumulation_waits_for_the_matching_of_each_part_only(tiny_cfg):
    step, _ = _step(tiny_cfg(config=CONFIGS[1]), parts=4)
    with EventStorage():
        for step.iter in range(2):
            with counted_waits() as found:
                step.run_step()
    assert found.total() == 4 + 1, dict(found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", CONFIGS + OTHERS)
def test_a_step_on_a_gpu(config, tiny_cfg, recwarn):
    step, averaged = _step(tiny_cfg("MODEL.DEVICE", "cuda", config=config))
    with EventStorage():
        for step.iter in range(3):
            recwarn.clear()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step.run_step()
                averaged.update()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in recwarn.list if "synchronizing" in str(w.message)]
    assert len(waits) <= MOST, [f"{w.filename}:{w.lineno}" for w in waits]


def test_losses_are_logged_as_detectron2_logs_them(tiny_cfg):
    step, _ = _step(tiny_cfg(config=CONFIGS[1]))
    losses = []
    keep = step.metrics.add
    step.metrics.add = lambda i, found, seconds: (losses.append(found), keep(i, found, seconds))
    with EventStorage() as storage:
        for step.iter in range(4):
            step.run_step()
    for number, (value, iteration) in enumerate(storage.history("loss_mask").values()):
        assert iteration == number
        assert value == pytest.approx(losses[number]["loss_mask"].item(), rel=1e-6)
    assert storage.history("total_loss").latest() == pytest.approx(sum(map(float, losses[3].values())), rel=1e-5)
    assert storage.history("data_time").latest() >= 0
