"""Evaluating several datasets, of which some files cannot be read, and the evaluator of each."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_context
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

from ddl_d2.checkpoint.loading import local_path
from ddl_d2.data.build import test_rows
from ddl_d2.data.loader import BatchesOfOneSize
from ddl_d2.engine.watchdog import ending_where_it_hangs
from ddl_d2.evaluation.clip_results import ClipMetricOptions
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator
from ddl_d2.evaluation.temporal_evaluator import TemporalForgeryEvaluator
from ddl_d2.predictions.meta import make_meta
from ddl_d2.predictions.writer import PredictionStoreWriter
from ddl_d2.utils.distributed import wait_for_all

logger = logging.getLogger(__name__)


TEMPORAL = "ddl_temporal"
"""The `evaluator_type` of datasets of clips."""

_THREADS = 2
"""Of each rank, for reading masks and writing maps: as much as a GPU's predictions need."""

_LOG_SECONDS = 30.0
"""From one line about an evaluation to the next."""


class OnReadable(nn.Module):
    """`model` for batches with rows that could not be read (`unreadable`): it sees the others, if there are any."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the model's output for each row, and an empty dict for an unreadable one."""
        readable = [row for row in batched_inputs if "unreadable" not in row]
        outputs: Iterator[dict[str, Any]] = iter(self.model(readable) if readable else [])
        return [{} if "unreadable" in row else next(outputs) for row in batched_inputs]


def evaluate_each(names: Sequence[str], evaluate: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Evaluate all datasets, also after one that is incomplete.

    Args:
        names: of the datasets.
        evaluate: takes the number of a dataset in `names`, returns its results.

    Returns:
        Detectron2's dict: the results of a single dataset, or those of each by its name.

    Raises:
        IncompleteEvaluationError: in the end, with all files that could not be read.
    """
    results: dict[str, Any] = OrderedDict()
    incomplete: list[IncompleteEvaluationError] = []
    for number, name in enumerate(names):
        try:
            results[name] = evaluate(number)
        except IncompleteEvaluationError as error:
            logger.error("%s: %s", name, error)
            incomplete.append(error)
    if incomplete:
        raise IncompleteEvaluationError.of(incomplete)
    return next(iter(results.values())) if len(results) == 1 else results


@torch.no_grad()
def evaluate_one(
    model: nn.Module, loader: BatchesOfOneSize, evaluator: DatasetEvaluator, *, hang_timeout: float = 0.0
) -> dict[str, Any]:
    """Predict the rows of a loader, in eval mode, and return what the evaluator makes of it.

    As Detectron2's `inference_on_dataset`, but nothing waits for a GPU here: a batch is handed to it while the
    evaluator still works on the one before. In the end the ranks wait for the slowest of them, as long as that takes.

    Args:
        model: takes lists of rows.
        loader: gives them.
        evaluator: sees rows and outputs.
        hang_timeout: where there are several ranks, one that a batch takes longer than this (seconds) ends with a
            report of where it was, and so ends the run; 0: any time.
    """
    evaluator.reset()
    done, start = 0, time.perf_counter()
    logger.info("Evaluating %d images on this rank", loader.num_rows)
    limit = hang_timeout if comm.get_world_size() > 1 else 0.0
    with inference_context(model), ending_where_it_hangs(limit, f"rank {comm.get_rank()}, evaluating,") as goes_on:
        for rows in loader:
            goes_on()
            evaluator.process(rows, model(rows))
            done += len(rows)
            rate = done / (time.perf_counter() - start)
            log_every_n_seconds(
                logging.INFO,
                f"Evaluated {done} of {loader.num_rows} images, {rate:.1f}/s, "
                f"{timedelta(seconds=round((loader.num_rows - done) / rate))} to go",
                n=_LOG_SECONDS,
                name=__name__,
            )
    return evaluator.evaluate() or {}


def build_evaluator(cfg: CfgNode, dataset_name: str, *, save_predictions: bool | None = None) -> ForgeryEvaluator:
    """Return an evaluator that writes metrics and predictions to `OUTPUT_DIR/inference/<dataset>`.

    Args:
        cfg: the config.
        dataset_name: of a registered dataset.
        save_predictions: whether to write a prediction store, too; None: as TEST.SAVE_PREDICTIONS says.
    """
    folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    store = None
    if cfg.TEST.SAVE_PREDICTIONS if save_predictions is None else save_predictions:
        store = PredictionStoreWriter(
            os.path.join(folder, "predictions"),
            make_meta(
                config=cfg.dump(),
                weights=local_path(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else None,
                threshold=cfg.TEST.MAP_THRESHOLD,
                max_pixels=cfg.INPUT.MAX_PIXELS,
            ),
            overwrite=True,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            barrier=wait_for_all,
        )
    rows, whole = test_rows(cfg, dataset_name), None
    if cfg.TEST.MAX_IMAGES and len(rows) < (size := len(DatasetCatalog.get(dataset_name))):
        whole = size
    common = {
        "dataset_rows": rows,
        "subset_of": whole,
        "output_dir": folder,
        "threshold": cfg.TEST.MAP_THRESHOLD,
        "empty_score": cfg.TEST.EMPTY_SCORE,
        "video_score": cfg.TEST.VIDEO_SCORE,
        "store": store,
        "max_pixels": cfg.INPUT.MAX_PIXELS,
        "threads": _THREADS,
    }
    if MetadataCatalog.get(dataset_name).get("evaluator_type") != TEMPORAL:
        return ForgeryEvaluator(**common)
    temporal = cfg.TEST.TEMPORAL
    options = ClipMetricOptions(overlaps=temporal.AP, numbers=temporal.AR, curve=temporal.AP_CURVE)
    return TemporalForgeryEvaluator(metric_options=options, **common)
