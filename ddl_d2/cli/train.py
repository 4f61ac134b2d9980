"""Train or evaluate any system of the project, with Detectron2's usual flags.

    ddl-d2 train --config-file ddl_i/mask2former_swin_tiny --num-gpus 8
    ddl-d2 train --config-file ... --eval-only MODEL.WEIGHTS output/model_best.pth
    torchrun --nproc-per-node 8 tools/train_net.py --config-file ...

The config is a file or one of the names that `ddl-d2 configs` lists; without one, that of MODEL.WEIGHTS is used, if the
file carries it. `--resume` goes on from the newest valid checkpoint in OUTPUT_DIR; without it, an OUTPUT_DIR that holds
a run is refused unless `--overwrite` deletes that. SIGTERM or Ctrl-C ends the step, saves and exits with 143; a second
one ends at once. Without a GPU, --num-gpus counts CPU processes. Everything after the flags is KEY VALUE. `--eval-only`
writes metrics.json and a prediction store under OUTPUT_DIR/inference/<dataset>, and its log and config beside that.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ddl_d2.checkpoint.changed_keys import check_resumable
from ddl_d2.checkpoint.config import config_for
from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.checkpoint.resume import config_to_resume
from ddl_d2.cli.common import cli_errors
from ddl_d2.config.load import find_config
from ddl_d2.data.build import check_dataset_names
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.launch import launch
from ddl_d2.engine.run_folder import claimed, clear_run, refuse_finished
from ddl_d2.engine.trainer import ForgeryTrainer, distributed
from ddl_d2.errors import ConfigError, RankError
from ddl_d2.utils.malloc import keep_freed_memory


def build_parser() -> argparse.ArgumentParser:
    """The command line: Detectron2's, and --overwrite."""
    parser = default_argument_parser(epilog=" ")
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="train anew in the OUTPUT_DIR of another run, whose weights are deleted",
    )
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None, *, work: Callable[[Namespace], None] | None = None) -> int:
    """Run the command line; returns the exit code. `work` is what every rank does (default: `train_or_evaluate`)."""
    args = build_parser().parse_args(argv)
    if args.config_file:
        args.config_file = os.fspath(find_config(args.config_file))  # Detectron2 copies the file into the log
    engine = check_first(args).ENGINE
    try:
        launch(work or train_or_evaluate, args, hang_timeout=engine.HANG_TIMEOUT, grace=engine.STOP_GRACE)
    except RankError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check_first(args: Namespace) -> CfgNode:
    """Say once, before any process is started, what can be seen to be wrong; returns the config."""
    cfg = _config_of(args)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty: nothing to train on")
    if args.eval_only and not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty: nothing to evaluate")
    if not cfg.OUTPUT_DIR:
        raise ConfigError("OUTPUT_DIR is empty: name a folder for checkpoints, logs and metrics")
    check_dataset_names(cfg.DATASETS.TEST if args.eval_only else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    _check_device(cfg.MODEL.DEVICE)
    if args.resume and args.overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite deletes it: give one of them")
    if args.eval_only:
        return cfg
    if not args.resume and not args.overwrite:
        refuse_finished(cfg.OUTPUT_DIR)
    if args.resume:
        # Before the config is written into OUTPUT_DIR: there it is what was trained with.
        check_resumable(config_to_resume(cfg.OUTPUT_DIR), cfg.dump())
    return cfg


def _check_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE is {name!r}: it must be cpu, cuda or another device of PyTorch") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"MODEL.DEVICE is {name!r}, and PyTorch finds no GPU here: set MODEL.DEVICE cpu")


def _config_of(args: Namespace) -> CfgNode:
    weights = dict(zip(args.opts[::2], args.opts[1::2], strict=False)).get("MODEL.WEIGHTS", "")
    if not args.config_file and not weights:
        raise ConfigError("--config-file is missing: give a file, or a name that `ddl-d2 configs` lists")
    cfg = config_for(weights, config=args.config_file or None, opts=args.opts)
    register_datasets(cfg)
    return cfg


def train_or_evaluate(args: Namespace) -> None:
    """One rank's work."""
    cfg = _config_of(args)
    if args.config_file:
        args.config_file = str(find_config(args.config_file))  # Detectron2 prints the file
    if args.eval_only:
        # Not into OUTPUT_DIR itself: the log and config.yaml there are those of the training.
        set_up(cfg, args, folder=os.path.join(cfg.OUTPUT_DIR, "inference"))
        evaluate(cfg)
        return
    with claimed(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        comm.synchronize()  # the others write nothing either before the folder is this run's
        if args.overwrite and comm.is_main_process():
            clear_run(cfg.OUTPUT_DIR)
        set_up(cfg, args, folder=cfg.OUTPUT_DIR)
        trainer = ForgeryTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def set_up(cfg: CfgNode, args: Namespace, *, folder: str) -> None:
    """Seed, and start the log and config.yaml in `folder`."""
    there = cfg.clone()
    there.defrost()
    there.OUTPUT_DIR = folder
    default_setup(there, args)
    keep_freed_memory()
    setup_logger(folder, distributed_rank=comm.get_rank(), name="ddl_d2")


def evaluate(cfg: CfgNode) -> dict[str, Any]:
    """Score MODEL.WEIGHTS on every image of DATASETS.TEST; returns as `ForgeryTrainer.test`."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.MAX_IMAGES = 0  # a part is for evaluations in the course of a training
    cfg.MODEL.LOUPE.TOKEN_CACHE = ""  # likewise: the figures of weights are those of images
    model = build_trained_model(cfg)
    evaluators = [ForgeryTrainer.build_evaluator(cfg, name, save_predictions=True) for name in cfg.DATASETS.TEST]
    return ForgeryTrainer.test(cfg, distributed(model), evaluators)
