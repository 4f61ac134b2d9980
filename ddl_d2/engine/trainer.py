"""The trainer: Detectron2's loop, hooks and evaluation around a step that refuses to learn from NaN."""

from __future__ import annotations

import logging
import os
import time
import weakref
from typing import Any

import torch
from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.config import ConfigError
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.engine.checkpoint import Checkpointer, local_path
from ddl_d2.engine.hooks import PredictionPictures
from ddl_d2.engine.optim import build_lr_scheduler, build_optimizer
from ddl_d2.engine.precision import autocast, compile_parts
from ddl_d2.engine.sam import frozen_running_statistics, random_numbers_to_repeat, uphill
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator
from ddl_d2.inference.store import PredictionStoreWriter, make_meta
from ddl_d2.modeling.matcher import NonFiniteError

logger = logging.getLogger(__name__)


class TrainingStep(SimpleTrainer):
    """One step: forward (under autocast if asked), check, backward, update.

    Args:
        precision: "float32", "bfloat16" or "float16" (the latter with loss scaling).
        sam_rho: how far uphill sharpness-aware minimisation takes the gradient (see `engine/sam.py`), with twice the
            work a step; 0: at the weights themselves. Not with "float16".
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        sam_rho: float = 0.0,
    ):
        super().__init__(model, data_loader, optimizer)
        if sam_rho and precision == "float16":
            raise ConfigError("SOLVER.SAM.ENABLED does not go with SOLVER.AMP.PRECISION float16: use bfloat16")
        self.sam_rho = sam_rho
        self.device = next(model.parameters()).device
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        self.batch: list[dict] = []

    def run_step(self) -> None:
        start = time.perf_counter()
        self.batch = batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        losses = self._backward_uphill(batch) if self.sam_rho else self._backward(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)
        # Before the step: clipping has to see the true gradients, and a fused optimizer would unscale them after it.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _backward(self, batch: list[dict]) -> dict[str, Tensor]:
        """Gradients of the batch's losses at the weights as they are; -> the losses."""
        with autocast(self.device.type, self.precision):
            losses = self.model(batch)
        total = sum(losses.values())
        self._refuse_non_finite(losses, total, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        return losses

    def _backward_uphill(self, batch: list[dict]) -> dict[str, Tensor]:
        """Gradients uphill, for sharpness-aware minimisation; -> the losses at the weights as they are."""
        with random_numbers_to_repeat(self.device):
            losses = self._backward(batch)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        with uphill(parameters, self.sam_rho), frozen_running_statistics(self.model):
            self._backward(batch)
        return losses

    def _refuse_non_finite(self, losses: dict[str, Tensor], total: Tensor, batch: list[dict]) -> None:
        if torch.isfinite(total):
            return
        names = [name for name, loss in losses.items() if not torch.isfinite(loss)]
        ids = [str(row.get("image_id", row.get("file_name"))) for row in batch]
        raise NonFiniteError(f"{', '.join(names)} at iteration {self.iter}", ids)

    def state_dict(self) -> dict[str, Any]:
        own = {"grad_scaler": self.scaler.state_dict(), "data_loader": self.data_loader.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.scaler.load_state_dict(state_dict["grad_scaler"])
        self.data_loader.load_state_dict(state_dict["data_loader"])


class ForgeryTrainer(DefaultTrainer):
    """Everything around the step, from a frozen config. Same methods and life cycle as Detectron2's DefaultTrainer."""

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        model = self.build_model(cfg)
        _refuse_sync_bn_on_cpu(model, cfg.MODEL.DEVICE)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        if cfg.MODEL.COMPILE:
            compile_parts(model)
        model = distributed(model)
        precision = cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else "float32"
        sam_rho = cfg.SOLVER.SAM.RHO if cfg.SOLVER.SAM.ENABLED else 0.0
        self._trainer = TrainingStep(model, data_loader, optimizer, precision=precision, sam_rho=sam_rho)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, allow_partial=True, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Detectron2's hooks, with the best checkpoint by final score, and pictures of predictions in TensorBoard."""
        cfg = self.cfg
        default = super().build_hooks()
        if not comm.is_main_process():
            return default
        *others, writer = default
        keep = [h for h in others if not isinstance(h, hooks.PeriodicCheckpointer)]
        evaluation = next(i for i, h in enumerate(keep) if isinstance(h, hooks.EvalHook))
        periodic = hooks.PeriodicCheckpointer(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=cfg.SOLVER.MAX_TO_KEEP
        )
        keep.insert(evaluation, periodic)
        if cfg.TEST.EVAL_PERIOD > 0 and len(cfg.DATASETS.TEST) == 1:
            # The tag of the last checkpoint must stay on the periodic one: the best is no place to resume from.
            best = Checkpointer(self.model, cfg.OUTPUT_DIR, tag_last=False)
            keep.append(hooks.BestCheckpointer(cfg.TEST.EVAL_PERIOD, best, "ddl/final"))
        if cfg.VIS_PERIOD > 0:
            keep.append(PredictionPictures(cfg.VIS_PERIOD, cfg.TEST.MAP_THRESHOLD))
        return [*keep, writer]

    @property
    def batch(self) -> list[dict]:
        """The latest training batch (mapper rows)."""
        return self._trainer.batch

    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(build_train_loader)
    build_test_loader = staticmethod(build_test_loader)

    @classmethod
    def test(cls, cfg, model: nn.Module, evaluators=None):
        """As Detectron2's, in TEST.PRECISION."""
        with autocast(cfg.MODEL.DEVICE, cfg.TEST.PRECISION):
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name: str, *, save_predictions: bool | None = None) -> ForgeryEvaluator:
        """Metrics into `OUTPUT_DIR/inference/<dataset>`, and (if asked) a prediction store beside them."""
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        store = None
        if cfg.TEST.SAVE_PREDICTIONS if save_predictions is None else save_predictions:
            store = PredictionStoreWriter(
                os.path.join(folder, "predictions"),
                make_meta(
                    config=cfg.dump(),
                    weights=local_path(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else None,
                    threshold=cfg.TEST.MAP_THRESHOLD,
                ),
                overwrite=True,
                rank=comm.get_rank(),
                world_size=comm.get_world_size(),
                barrier=comm.synchronize,
            )
        return ForgeryEvaluator(
            dataset_rows=dataset_name,
            output_dir=folder,
            threshold=cfg.TEST.MAP_THRESHOLD,
            empty_score=cfg.TEST.EMPTY_SCORE,
            video_score=cfg.TEST.VIDEO_SCORE,
            store=store,
        )


def _refuse_sync_bn_on_cpu(model: nn.Module, device: str) -> None:
    if device == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ConfigError("SyncBN trains on GPUs only: on CPUs set MODEL.RESNETS.NORM FrozenBN (or BN)")


def distributed(model: nn.Module) -> nn.Module:
    """DistributedDataParallel where there are several ranks (GPU or CPU), the model itself otherwise."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    devices = [comm.get_local_rank()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
