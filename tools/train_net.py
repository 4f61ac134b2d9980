#!/usr/bin/env python
"""Train or evaluate any system of the project, with Detectron2's usual flags.

    python tools/train_net.py --config-file configs/ddl_i/mask2former_swin_tiny.yaml --num-gpus 8
    python tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_best.pth
    torchrun --nproc-per-node 8 tools/train_net.py --config-file ...

`--resume` goes on from the newest valid checkpoint in OUTPUT_DIR. SIGTERM ends the step, saves and exits with 143.
Without a GPU, --num-gpus counts CPU processes. Everything after the flags is KEY VALUE. `--eval-only` writes
metrics.json and a prediction store under OUTPUT_DIR/inference/<dataset>.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.cli.common import cli_errors
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.launch import launch
from ddl_d2.engine.trainer import ForgeryTrainer, distributed
from ddl_d2.errors import ConfigError, RankError
from ddl_d2.utils.malloc import keep_freed_memory


def main(args: Namespace) -> None:
    """One rank's work."""
    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    keep_freed_memory()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="ddl_d2")
    if args.eval_only:
        evaluate(cfg)
        return
    trainer = ForgeryTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def evaluate(cfg) -> None:
    """Score MODEL.WEIGHTS on every dataset of DATASETS.TEST."""
    model = build_trained_model(cfg)
    evaluators = [ForgeryTrainer.build_evaluator(cfg, name, save_predictions=True) for name in cfg.DATASETS.TEST]
    ForgeryTrainer.test(cfg, distributed(model), evaluators)


def check_first(args: Namespace) -> CfgNode:
    """What can be seen to be wrong before any process is started is said once, not by every rank; -> the config."""
    if not args.config_file:
        raise ConfigError("--config-file is missing; see configs/")
    cfg = load_config(args.config_file, args.opts)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty: nothing to train on")
    if args.eval_only and not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty: nothing to evaluate")
    return cfg


@cli_errors()
def run(words: Sequence[str] | None = None, *, main: Callable[[Namespace], None] = main) -> None:
    """The command line; `main` is every rank's work."""
    args = default_argument_parser().parse_args(words)
    engine = check_first(args).ENGINE
    try:
        launch(main, args, hang_timeout=engine.HANG_TIMEOUT, grace=engine.STOP_GRACE)
    except RankError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
