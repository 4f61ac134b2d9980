"""The trainer: Detectron2's loop, hooks and evaluation around this project's training step."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.engine import hooks as d2_hooks
from detectron2.evaluation import DatasetEvaluator, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.checkpoint.changed_keys import values_of
from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.engine.checks import check_numbers, refuse_sync_bn_on_cpu, say_what_parts_change
from ddl_d2.engine.evaluation_loop import OnReadable, build_evaluator, evaluate_each, evaluate_one
from ddl_d2.engine.hooks.averaging import AverageWeights
from ddl_d2.engine.hooks.checkpoints import BestCheckpoint, RecentCheckpoints
from ddl_d2.engine.hooks.evaluation import Evaluation, StopWhenAsked, TolerantEvaluation, share_buffers
from ddl_d2.engine.hooks.reports import BadFileReport, PredictionImages, TolerantWriter
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.token_filling import check_tokens, refuse_changing_tokens
from ddl_d2.engine.watchdog import Watch
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.sync_norm import synchronized_norms
from ddl_d2.modeling.test_time.build import wrapped_for_testing
from ddl_d2.solver.build import (
    GROUPING_KEYS,
    build_lr_scheduler,
    build_optimizer,
    groups_of_config,
    regrouped_state,
    restart_schedule,
)
from ddl_d2.solver.ema import AveragedWeights
from ddl_d2.solver.freezing import freeze
from ddl_d2.utils.precision import autocast, compile_parts
from ddl_d2.utils.shared_memory import explained_shared_memory

logger = logging.getLogger(__name__)

_CHOOSING = {
    "images": ("ddl/final", ("ddl/auc", "ddl/f1 + ddl/iou", "ddl/accuracy")),
    "clips": ("ddl/DDL-AV", ("ddl/AP@0.5", "ddl/AUC")),
}
"""What chooses the best checkpoint, and what does where that is not defined: without masks, reals, or both."""

LOG_PERIOD = 20
"""Steps from one line of metrics to the next."""

REPORT_SECONDS = 10.0
"""After what time more than ENGINE.HANG_TIMEOUT a step is ended from outside: what waits inside it knows more."""


class ForgeryTrainer(DefaultTrainer):
    """Everything around the step, from a frozen config. Same methods and life cycle as Detectron2's DefaultTrainer.

    Attributes:
        averaged: the moving average of the weights; None without SOLVER.EMA.
        checkpointer: saves to OUTPUT_DIR, and finds what a run is resumed from.
        scheduler: of the learning rate.
        start_iter: the first step of this run; more than 0 where it was resumed.
        max_iter: the number of steps of the whole training.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build model, loader, optimizer and hooks; on several ranks, each calls it.

        Raises:
            DdlError: the config does not describe a training that can be run; the message names the key.
        """
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        check_numbers(cfg)
        model = self.build_model(cfg).train()
        if cfg.MODEL.SYNC_BN:
            model = synchronized_norms(model)
        freeze(model, cfg.SOLVER.FREEZE)
        refuse_sync_bn_on_cpu(model, cfg.MODEL.DEVICE)
        if cfg.MODEL.LOUPE.TOKEN_CACHE:
            refuse_changing_tokens(cfg, model)
        say_what_parts_change(model, cfg.SOLVER.ACCUMULATION_PARTS)
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
            parts=cfg.SOLVER.ACCUMULATION_PARTS,
            sam_rho=sam_rho,
            log_period=LOG_PERIOD,
            max_iter=cfg.SOLVER.MAX_ITER,
            # The sampler's: SEED, or one drawn for all ranks; and a resumed run has that of the checkpoint.
            seed=lambda: data_loader.sampler.seed,
            stopped_steps=os.path.join(cfg.OUTPUT_DIR, "failures"),
            config=cfg.dump(),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.averaged = AveragedWeights(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        saved: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if self.averaged is not None:
            saved["ema"] = self.averaged
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, allow_partial=True, config=cfg.dump(), **saved)
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
        """Load MODEL.WEIGHTS or, with `resume`, go on from the newest valid checkpoint of OUTPUT_DIR.

        Raises:
            CheckpointError: the file cannot be read, or does not fit the model.
            ConfigError: a key changed whose value the checkpoint holds; see `checkpoint.changed_keys`.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed_from:
            self.start_iter = self.iter + 1
        elif self.averaged is not None:
            self.averaged.restart()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, with the rates, decays and schedule of this run's config.

        Raises:
            CheckpointError: the optimizer's state is of other parameters.
            ConfigError: more steps are done than SOLVER.MAX_ITER.
        """
        done = state_dict["iteration"] + 1
        if done > self.max_iter:
            raise ConfigError(
                f"SOLVER.MAX_ITER is {self.max_iter}: the checkpoint to resume from has done {done} steps"
            )
        step = dict(state_dict["_trainer"])
        step["optimizer"] = regrouped_state(step["optimizer"], self.optimizer, self._saved_groups())
        super().load_state_dict(state_dict | {"_trainer": step})
        restart_schedule(self.scheduler)

    def _saved_groups(self) -> list[dict] | None:
        """Return the optimizer's groups as the checkpoint's config made them; None if that is not known."""
        saved = values_of(self.checkpointer.saved_config) if self.checkpointer.saved_config else {}
        if "SOLVER.BASE_LR" not in saved:
            return None
        # Keys that came later than the checkpoint change nothing by default.
        solver = {name: saved.get(f"SOLVER.{name}", default) for name, default in GROUPING_KEYS.items()}
        return groups_of_config(CfgNode(solver), self.model)

    def build_hooks(self) -> list[d2_hooks.HookBase | None]:
        """Return the hooks in Detectron2's order: a checkpoint, if due, before the evaluation; the writers last."""
        cfg, step, main = self.cfg, self._trainer, comm.is_main_process()
        recent = RecentCheckpoints(
            self.checkpointer,
            cfg.SOLVER.CHECKPOINT_PERIOD,
            cfg.SOLVER.MAX_TO_KEEP,
            exported=self._exported,
            keep=cfg.SOLVER.KEEP_CHECKPOINTS,
        )
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
        average = None if self.averaged is None else AverageWeights(self.averaged)
        common = [average, d2_hooks.IterationTimer(), d2_hooks.LRScheduler(), self._precise_bn()]
        return [*common, recent, stop, evaluation, *self._reports()] if main else [*common, stop, evaluation]

    def _precise_bn(self) -> d2_hooks.PreciseBN | None:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        if not cfg.TEST.PRECISE_BN.ENABLED or not get_bn_modules(self.model):
            return None
        loader = self.build_train_loader(cfg)
        return d2_hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)

    def _reports(self) -> list[d2_hooks.HookBase]:
        """Return what the main process does after an evaluation."""
        cfg = self.cfg
        reports: list[d2_hooks.HookBase] = []
        if cfg.TEST.EVAL_PERIOD > 0 and len(cfg.DATASETS.TEST) == 1:
            # The tag of the last checkpoint must stay on the periodic one: the best is no place to resume from.
            best = Checkpointer(self.model, cfg.OUTPUT_DIR, tag_last=False, config=cfg.dump())
            metric, instead = _CHOOSING["clips" if cfg.INPUT.CLIP.ENABLED else "images"]
            reports.append(BestCheckpoint(best, metric, instead=instead, exported=self._exported))
        elif cfg.TEST.EVAL_PERIOD > 0 and cfg.DATASETS.TEST:
            logger.warning("No model_best is chosen: DATASETS.TEST names %d datasets, not one", len(cfg.DATASETS.TEST))
        if cfg.VIS_PERIOD > 0:
            reports.append(PredictionImages(cfg.VIS_PERIOD, cfg.TEST.MAP_THRESHOLD))
        reports.append(BadFileReport(self.data_loader.bad_files, cfg.OUTPUT_DIR))
        return [*reports, TolerantWriter(self.build_writers(), period=LOG_PERIOD)]

    def _evaluate(self) -> dict[str, Any]:
        with self._exported():
            if self.averaged is not None:
                share_buffers(self.model)  # each rank has averaged its own
            self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def _exported(self) -> AbstractContextManager[None]:
        """Give the model the weights that are evaluated and exported: their average, where SOLVER.EMA asks for it."""
        return nullcontext() if self.averaged is None else self.averaged.in_place()

    def train(self) -> Any:
        """Train from `start_iter` to `max_iter`; return the last evaluation's results.

        Raises:
            SystemExit: with exit code 143, after SIGTERM or Ctrl-C, once the step is done and saved.
            IncompleteEvaluationError: in the end, if any evaluation on the way was incomplete.
            SaveError: the last checkpoint could not be saved.
            DatasetError: MODEL.LOUPE.TOKEN_CACHE holds other tokens than the backbone makes.
            NonFiniteError: see `TrainingStep.run_step`.
            TooManyBadFilesError: likewise.
        """
        if self.cfg.MODEL.LOUPE.TOKEN_CACHE:
            check_tokens(self.cfg, self.model)
        with self._watch:
            results = super().train()
        self._evaluation.check()
        return results

    def run_step(self) -> None:
        """Do one step, within ENGINE.HANG_TIMEOUT."""
        with self._watch.step(f"iteration {self.iter}"):
            super().run_step()

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model of a config. Raises ConfigError for a name that no registry has."""
        try:
            return super().build_model(cfg)
        except KeyError as error:
            if "registry" not in str(error):
                raise
            raise ConfigError(f"{error.args[0]} Look at MODEL.META_ARCHITECTURE, BACKBONE and SEM_SEG_HEAD") from error

    @property
    def batch(self) -> list[dict[str, Any]]:
        """The latest training batch (mapper rows)."""
        return self._trainer.batch

    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(build_train_loader)
    build_test_loader = staticmethod(build_test_loader)
    build_evaluator = staticmethod(build_evaluator)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate `model` on DATASETS.TEST, in TEST.PRECISION, on face crops and tiles as the config says.

        Args:
            cfg: the config.
            model: may be wrapped for several ranks.
            evaluators: one for each dataset; None: those of `build_evaluator`.

        Returns:
            The results of a single dataset, or those of each by its name.

        Raises:
            IncompleteEvaluationError: once all datasets were evaluated, if files of theirs cannot be read.
            InputError: shared memory is too small for the batches of data workers.
        """
        given = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators
        model = OnReadable(wrapped_for_testing(cfg, model))

        def test(number: int) -> dict[str, Any]:
            name = cfg.DATASETS.TEST[number]
            loader = cls.build_test_loader(cfg, name)
            evaluator = given[number] if given else cls.build_evaluator(cfg, name)
            results = evaluate_one(model, loader, evaluator, hang_timeout=cfg.ENGINE.HANG_TIMEOUT)
            if comm.is_main_process():
                logger.info("%s, in csv format:", name)
                print_csv_format(results)
            return results

        with autocast(cfg.MODEL.DEVICE, cfg.TEST.PRECISION), explained_shared_memory():
            return evaluate_each(cfg.DATASETS.TEST, test)


def distributed(model: nn.Module) -> nn.Module:
    """Wrap a model in DistributedDataParallel where there are several ranks (GPU or CPU)."""
    if comm.get_world_size() == 1:
        return model
    # Without `device_ids`: it would bring all tensors of the rows to the GPU itself, and wait for each.
    return DistributedDataParallel(model, broadcast_buffers=False)
