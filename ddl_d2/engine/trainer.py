"""The trainer: Detectron2's loop, hooks and evaluation around a step that refuses to learn from NaN."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.loading import local_path
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.engine.bad_data import BadFileReport, OnReadable, TolerantEvaluation, for_each_set
from ddl_d2.engine.failures import random_state
from ddl_d2.engine.hooks import (
    BestCheckpoint,
    Evaluation,
    LastingWriter,
    PredictionImages,
    RecentCheckpoints,
    StopWhenAsked,
)
from ddl_d2.engine.non_finite import StepGuard
from ddl_d2.engine.watchdog import Watch
from ddl_d2.errors import ConfigError, NonFiniteError
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator
from ddl_d2.io.bad_files import NO_BAD_FILES, BadFiles
from ddl_d2.modeling.test_time.build import wrapped_for_testing
from ddl_d2.predictions.meta import make_meta
from ddl_d2.predictions.writer import PredictionStoreWriter
from ddl_d2.solver.build import build_lr_scheduler, build_optimizer
from ddl_d2.solver.sam import frozen_running_statistics, random_numbers_to_repeat, uphill
from ddl_d2.utils.distributed import any_rank
from ddl_d2.utils.precision import autocast, compile_parts
from ddl_d2.utils.seed import seed_step

logger = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
"""After what time more than ENGINE.HANG_TIMEOUT a step is ended from outside: what waits inside it knows more."""


class TrainingStep(SimpleTrainer):
    """One step: forward (under autocast if asked), check, backward, update.

    Args:
        precision: "float32", "bfloat16" or "float16" (the latter with loss scaling).
        sam_rho: how far uphill sharpness-aware minimization takes the gradient (see `solver/sam.py`), with twice the
            work a step; 0: at the weights themselves. Not with "float16".
        seed: gives the run's seed, from which each step's random numbers follow; None leaves them to chance.
        failures: the folder for what a stopped step leaves (see `engine/failures.py`); None writes nothing.
        config: the run's config as YAML, for those files.

    Attributes:
        stop_requested: whether this rank would like to stop after the step; stop_agreed: whether any rank would.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        sam_rho: float = 0.0,
        seed: Callable[[], int] | None = None,
        failures: str | None = None,
        config: str = "",
    ):
        super().__init__(model, data_loader, optimizer)
        if sam_rho and precision == "float16":
            raise ConfigError("SOLVER.SAM.ENABLED does not go with SOLVER.AMP.PRECISION float16: use bfloat16")
        self.sam_rho = sam_rho
        self.seed = seed
        self.device = next(model.parameters()).device
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        self.batch: list[dict] = []
        self.guard = StepGuard(model, optimizer, self.scaler, precision=precision, failures=failures, config=config)
        self.stop_requested = self.stop_agreed = False

    def run_step(self) -> None:
        start = time.perf_counter()
        self.batch = batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.seed is not None:
            seed_step(self.seed(), self.iter, comm.get_rank())
        losses = self._backward_uphill(batch) if self.sam_rho else self._backward(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)
        # Before the step: clipping has to see the true gradients, and a fused optimizer would unscale them after it.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _backward(self, batch: list[dict]) -> dict[str, Tensor]:
        """Gradients of the batch's losses at the weights as they are; -> the losses.

        Raises NonFiniteError, TooManyBadFilesError, on all ranks. Only where the forward pass itself cannot go on with
        what is not finite, its rank raises alone: the others then wait in a reduction for it, and end with it.
        """
        before = random_state(self.device)
        try:
            with autocast(self.device.type, self.precision):
                losses = self.model(batch)
        except NonFiniteError as error:
            raise self.guard.stop_alone(error, batch, before, self.iter) from error
        total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        # Also of a loss that is not finite: in a distributed backward pass every rank waits for every other.
        self.scaler.scale(total).backward()
        non_finite, news, self.stop_agreed = any_rank(
            self.guard.non_finite(total), self._bad_files.has_news, self.stop_requested
        )
        if news:
            self._bad_files.agree()
            self._bad_files.check()
        if non_finite:
            raise self.guard.stop(losses, batch, before, self.iter)
        return losses

    @property
    def _bad_files(self) -> BadFiles:
        """What the loader could not read; of a plain list of batches, nothing."""
        return getattr(self.data_loader, "bad_files", NO_BAD_FILES)

    def _backward_uphill(self, batch: list[dict]) -> dict[str, Tensor]:
        """Gradients uphill, for sharpness-aware minimization; -> the losses at the weights as they are."""
        with random_numbers_to_repeat(self.device):
            losses = self._backward(batch)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        with uphill(parameters, self.sam_rho), frozen_running_statistics(self.model):
            self._backward(batch)
        return losses

    def request_stop(self) -> None:
        """Ask for a stop at the end of the step; from any thread."""
        self.stop_requested = True

    def state_dict(self) -> dict[str, Any]:
        own = {"grad_scaler": self.scaler.state_dict(), "data_loader": self.data_loader.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if "data_loader" in state_dict:
            self.data_loader.load_state_dict(state_dict["data_loader"])
        else:
            logger.warning("The checkpoint, of Detectron2's own trainer, has no order of images: it starts anew")
        if "grad_scaler" in state_dict:
            self.scaler.load_state_dict(state_dict["grad_scaler"])


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
        self._trainer = TrainingStep(
            model,
            data_loader,
            optimizer,
            precision=precision,
            sam_rho=sam_rho,
            # The sampler's: SEED, or one drawn for all ranks; and a resumed run has that of the checkpoint.
            seed=lambda: data_loader.sampler.seed,
            failures=os.path.join(cfg.OUTPUT_DIR, "failures"),
            config=cfg.dump(),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, allow_partial=True, config=cfg.dump(), trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self._watch = Watch(
            self._trainer.request_stop,
            grace=cfg.ENGINE.STOP_GRACE,
            hang_timeout=cfg.ENGINE.HANG_TIMEOUT and cfg.ENGINE.HANG_TIMEOUT + REPORT_SECONDS,
            # Of several ranks, whoever started them counts.
            count_signals=comm.get_world_size() == 1 and "TORCHELASTIC_RUN_ID" not in os.environ,
            name=f"rank {comm.get_rank()}",
        )
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's, from the newest valid checkpoint of OUTPUT_DIR."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed_from:
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Detectron2's order: a checkpoint, if one is due, before the evaluation; the writers last."""
        cfg, step, main = self.cfg, self._trainer, comm.is_main_process()
        recent = RecentCheckpoints(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_TO_KEEP)
        save = recent.save if main else None
        self._evaluation = TolerantEvaluation(self._evaluate)
        evaluation = Evaluation(
            cfg.TEST.EVAL_PERIOD,
            self._evaluation,
            stop_requested=lambda: step.stop_requested,
            stop_agreed=lambda: step.stop_agreed,
            save=save,
        )
        stop = StopWhenAsked(lambda: step.stop_agreed, save)
        common = [hooks.IterationTimer(), hooks.LRScheduler(), self._precise_bn()]
        return [*common, recent, stop, evaluation, *self._reports()] if main else [*common, stop, evaluation]

    def _precise_bn(self) -> hooks.PreciseBN | None:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        if not cfg.TEST.PRECISE_BN.ENABLED or not get_bn_modules(self.model):
            return None
        loader = self.build_train_loader(cfg)
        return hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)

    def _reports(self) -> list[hooks.HookBase]:
        """What the main process does after an evaluation."""
        cfg = self.cfg
        reports: list[hooks.HookBase] = []
        if cfg.TEST.EVAL_PERIOD > 0 and len(cfg.DATASETS.TEST) == 1:
            # The tag of the last checkpoint must stay on the periodic one: the best is no place to resume from.
            best = Checkpointer(self.model, cfg.OUTPUT_DIR, tag_last=False, config=cfg.dump())
            reports.append(BestCheckpoint(best, "ddl/final"))
        if cfg.VIS_PERIOD > 0:
            reports.append(PredictionImages(cfg.VIS_PERIOD, cfg.TEST.MAP_THRESHOLD))
        reports.append(BadFileReport(self.data_loader.bad_files, cfg.OUTPUT_DIR))
        return [*reports, LastingWriter(self.build_writers(), period=20)]

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def train(self):
        """As Detectron2's; leaves with exit code 143 (SystemExit) after SIGTERM, once the step is done and saved.

        Raises IncompleteEvaluationError in the end if any evaluation on the way was incomplete, and SaveError if the
        last checkpoint could not be saved.
        """
        with self._watch:
            results = super().train()
        self._evaluation.check()
        return results

    def run_step(self) -> None:
        with self._watch.step(f"iteration {self.iter}"):
            super().run_step()

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
        """As Detectron2's, in TEST.PRECISION, on face crops and tiles as the config says.

        Raises IncompleteEvaluationError, once all datasets were evaluated, if files of theirs cannot be read.
        """
        given = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators
        model = OnReadable(wrapped_for_testing(cfg, model))
        test_one = super().test

        def test(number: int) -> dict[str, Any]:
            alone = cfg.clone()
            alone.defrost()
            alone.DATASETS.TEST = (cfg.DATASETS.TEST[number],)
            return test_one(alone, model, None if given is None else given[number])

        with autocast(cfg.MODEL.DEVICE, cfg.TEST.PRECISION):
            return for_each_set(cfg.DATASETS.TEST, test)

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
