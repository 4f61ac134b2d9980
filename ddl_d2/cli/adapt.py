"""Adapt a trained Loupe to the images that it shall predict, without their labels, and predict them.

    ddl-d2 adapt --weights loupe.safetensors --images photos/ --output adapted
    ddl-d2 adapt --weights loupe.safetensors --output adapted DATASETS.DDL_ROOT ddl DATASETS.TEST "('ddl_i_test',)"

Its segmentor learns what its classifier says of the images (TEST.ADAPT.*), for one pass over them. Then all are
predicted: --output gets the adapted weights, and inference/<dataset>/predictions, a prediction store. Labels, where
there are any, are read for a table of metrics before and after only. `--resume` goes on with an adaptation that was
stopped; the same call gives the same results. Everything after the flags is KEY VALUE.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from ddl_d2.checkpoint.changed_keys import check_resumable
from ddl_d2.checkpoint.config import config_for
from ddl_d2.checkpoint.resume import config_to_resume
from ddl_d2.cli.common import cli_errors, count
from ddl_d2.cli.train import evaluate, set_up
from ddl_d2.config.load import find_config
from ddl_d2.data.build import all_rows, check_dataset_names, dataset_labels
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.adapt import AdaptationTrainer, adaptation_config, refuse_unadaptable
from ddl_d2.engine.launch import launch
from ddl_d2.engine.run_folder import claimed, clear_run, refuse_finished
from ddl_d2.errors import ConfigError
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.report import change_table
from ddl_d2.io.atomic import write_json

logger = logging.getLogger(__name__)

_TABLE = "adaptation.json"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="a trained Loupe with a segmentor")
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="a config's name or file (default: the weights' own)"
    )
    parser.add_argument("--images", metavar="DIR", help="a folder of images, instead of the dataset of DATASETS.TEST")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the adapted weights and predictions")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what is in --output")
    again.add_argument("--overwrite", action="store_true", help="delete what is in --output, and begin anew")
    parser.add_argument("--num-gpus", type=count, default=0, help="processes, each on a GPU if there are (%(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Adapt and predict; returns the exit code."""
    args = build_parser().parse_args(argv)
    args.num_machines, args.machine_rank, args.dist_url, args.eval_only = 1, 0, "auto", False
    if args.config_file:
        args.config_file = os.fspath(find_config(args.config_file))  # Detectron2 copies the file into the log
    cfg = _config_of(args)
    if not args.resume and not args.overwrite:
        refuse_finished(args.output)
    if args.resume:
        check_resumable(config_to_resume(args.output), adaptation_config(cfg).dump())
    launch(adapt_and_predict, args, hang_timeout=cfg.ENGINE.HANG_TIMEOUT, grace=cfg.ENGINE.STOP_GRACE)
    return 0


def adapt_and_predict(args: Namespace) -> None:
    """Do one rank's work."""
    cfg = _config_of(args)
    (name,) = cfg.DATASETS.TEST
    with claimed(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        comm.synchronize()
        if args.overwrite and comm.is_main_process():
            clear_run(cfg.OUTPUT_DIR)
        adaptation = adaptation_config(cfg)
        set_up(adaptation, args, folder=cfg.OUTPUT_DIR)
        labeled = (dataset_labels(all_rows(name)) >= 0).any()
        before = _metrics_before(cfg, resume=args.resume) if labeled else {}
        trainer = AdaptationTrainer(adaptation)
        trainer.checkpointer.allow_partial = cfg.MODEL.PARTIAL_WEIGHTS
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        comm.synchronize()  # the main process writes the weights that all read
        after = _metrics(_with(cfg, weights=os.path.join(cfg.OUTPUT_DIR, "model_final.safetensors")))
    if before and after and comm.is_main_process():
        write_json(Path(cfg.OUTPUT_DIR) / _TABLE, {"before": before, "after": after})
        print(change_table(before, after))
    if comm.is_main_process():
        print(f"predictions: {os.path.join(cfg.OUTPUT_DIR, 'inference', name, 'predictions')}")


def _metrics_before(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    """Evaluate the weights as they are; a resumed run has done so."""
    folder = Path(cfg.OUTPUT_DIR) / "before"
    kept = folder / _TABLE
    if resume and kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    try:
        metrics = _metrics(_with(cfg, output=folder))
    except IncompleteEvaluationError as error:
        logger.warning("There will be no table of metrics: %s", error)
        return {}
    if comm.is_main_process():
        write_json(kept, metrics)
    return metrics


def _metrics(cfg: CfgNode) -> dict[str, Any]:
    """Predict the dataset into a store; return the metrics, on the main process and of a dataset with labels."""
    return evaluate(cfg).get("ddl", {})


def _with(cfg: CfgNode, *, weights: str = "", output: Path | None = None) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights or cfg.MODEL.WEIGHTS
    cfg.OUTPUT_DIR = str(output or cfg.OUTPUT_DIR)
    cfg.freeze()
    return cfg


def _config_of(args: Namespace) -> CfgNode:
    """The config that the images are predicted with."""
    folder = ["DATASETS.FOLDER_ROOT", args.images, "DATASETS.TEST", "('folder',)"] if args.images else []
    # The tokens that the weights were trained on, if any, may lie on another machine.
    opts = ["MODEL.LOUPE.TOKEN_CACHE", "", *args.opts, *folder, "OUTPUT_DIR", args.output]
    cfg = config_for(args.weights, config=args.config_file or None, opts=opts)
    register_datasets(cfg)
    if cfg.MODEL.LOUPE.CONDITION_TEST == "truth":
        raise ConfigError("MODEL.LOUPE.CONDITION_TEST is 'truth', and adaptation reads no labels: leave it at 'score'")
    refuse_unadaptable(cfg)
    check_dataset_names(cfg.DATASETS.TEST)
    return cfg


if __name__ == "__main__":
    sys.exit(main())
