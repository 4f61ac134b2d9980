"""Compute the tokens of a frozen backbone once, so that training Loupe's heads reads them instead of images.

    ddl-d2 cache-tokens --config-file ddl_i/loupe_cls --num-gpus 8 MODEL.LOUPE.TOKEN_CACHE tokens
    ddl-d2 train --config-file ddl_i/loupe_cls --num-gpus 8 MODEL.LOUPE.TOKEN_CACHE tokens

Every image of DATASETS.TRAIN and DATASETS.TEST goes through the backbone, TEST.BATCH_SIZE at once. How much disk that
takes is said first; --dry-run says it and ends. What an interrupted call has computed stays: the next one adds what is
missing, also of files that were changed. Images that cannot be read are counted, and training counts them as bad.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.cli.common import cli_errors, count
from ddl_d2.data.build import all_rows, check_dataset_names
from ddl_d2.data.datasets import load_config
from ddl_d2.data.token_cache import TokenWriter
from ddl_d2.data.token_mapper import refuse_changing_images
from ddl_d2.engine.launch import launch
from ddl_d2.engine.token_filling import (
    Filling,
    bytes_per_image,
    fill,
    refuse_changing_tokens,
    token_settings,
    tokens_there,
)
from ddl_d2.errors import ConfigError, InputError
from ddl_d2.solver.freezing import freeze
from ddl_d2.utils.malloc import keep_freed_memory

_GB = 10**9
_COUNTED_ON = 0.98
"""The share of the free disk that may be used."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a config file, or the name of one")
    parser.add_argument("--num-gpus", type=count, default=0, help="processes, each on a GPU if there are (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say how much disk it takes, and end")
    parser.add_argument("--max-gb", type=float, metavar="GB", help="refuse to take more disk (default: what is free)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys to change")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Fill the cache; returns the exit code."""
    args = build_parser().parse_args(argv)
    cfg = _checked_config(args)
    args.num_machines, args.machine_rank, args.dist_url = 1, 0, "auto"
    launch(fill_all, args, hang_timeout=cfg.ENGINE.HANG_TIMEOUT, grace=cfg.ENGINE.STOP_GRACE)
    return 0


def fill_all(args: Namespace) -> None:
    """Do one rank's work.

    Raises:
        ConfigError: the backbone is trained, or its tokens are not the same each time.
        DatasetError: the folder holds tokens of something else.
        InputError: the tokens would take more disk than there is, or than --max-gb.
        SaveError: the disk is full all the same.
    """
    cfg = _checked_config(args)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)  # as a training on one process does before its model is built
    keep_freed_memory()
    model = frozen_model(cfg)
    names, folder = _names(cfg), cfg.MODEL.LOUPE.TOKEN_CACHE
    images = sum(len(all_rows(name)) for name in names)
    needed = images * bytes_per_image(cfg, model)
    free = shutil.disk_usage(_nearest(Path(folder))).free
    _say(f"{images} images of {', '.join(names)}: {_gb(needed)} of tokens in {folder}, {_gb(free)} are free there")
    if args.dry_run:
        return
    settings = token_settings(cfg, model)
    cache = tokens_there(cfg, settings)
    missing = needed * max(0.0, 1 - len(cache or ()) / images)
    limit = free * _COUNTED_ON if args.max_gb is None else args.max_gb * _GB
    if missing > limit:
        raise InputError(
            f"{folder}: the tokens that are missing take {_gb(missing)}, more than the {_gb(limit)} that may be used: "
            "name a folder on another disk, take part of the images, or set MODEL.LOUPE.TOKEN_PRECISION float16"
        )
    writer = TokenWriter(folder, settings)
    for name in names:
        parts = comm.gather(fill(cfg, name, model, cache, writer))
        _say(f"{name}: {sum(parts, Filling())}")


def frozen_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config as its training starts with it, and see that its tokens stay the same; in eval mode.

    Raises:
        ConfigError: they do not.
        CheckpointError: MODEL.WEIGHTS cannot be read, or is of another model.
    """
    model = build_model(cfg).train()
    freeze(model, cfg.SOLVER.FREEZE)
    refuse_changing_tokens(cfg, model)
    if cfg.MODEL.WEIGHTS:
        load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=True)
    return model.eval()


def _checked_config(args: Namespace) -> CfgNode:
    cfg = load_config(args.config_file, args.opts)
    if not cfg.MODEL.LOUPE.TOKEN_CACHE:
        raise ConfigError("MODEL.LOUPE.TOKEN_CACHE is empty: name the folder of the tokens")
    if not _names(cfg):
        raise ConfigError("DATASETS.TRAIN and DATASETS.TEST are empty: there is nothing to compute tokens of")
    check_dataset_names(_names(cfg))
    refuse_changing_images(cfg)
    return cfg


def _names(cfg: CfgNode) -> list[str]:
    return list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _gb(size: float) -> str:
    return f"{size / _GB:.2f} GB"


def _say(text: str) -> None:
    if comm.is_main_process():
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
