"""Make the file that ships of trained weights: half precision, with the config and what the weights are in it.

    ddl-d2 release-weights output/mine/model_0*.pth --config mine.yaml --name mine --output mine.safetensors

Several checkpoints of one run become one by the mean of their weights (of their moving averages, where SOLVER.EMA made
them); `--norm-batches` then measures their batch norms' statistics anew on training images, since the mean of
statistics is not that of the averaged network. The config that is stored names no dataset, folder or pretrained file.
`--score-offset` is added to the logit of every image, so that a score of .5 lies where there are as many false alarms
as you allow. The metadata: `config` (YAML), `name`, `description`, `score_offset`, and `sha256` of all tensors (names,
shapes, values).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from fvcore.nn.precise_bn import update_bn_stats
from torch import Tensor, nn

from ddl_d2.checkpoint.loading import build_untrained_model, load_checkpoint
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.checkpoint.shipped import digest
from ddl_d2.cli.common import add_overwrite, cli_errors, count, refuse_existing
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.build import build_train_loader
from ddl_d2.data.datasets import load_config
from ddl_d2.errors import CheckpointError, ConfigError
from ddl_d2.io.weights import load_checkpoint_file, predicting_weights

# What shifts the image's logit: the bias of the last layer of every system's image head.
_BIAS = "image_head.linear.bias"
# Config keys that say where a run's files lay.
_LOCAL = (
    "MODEL.WEIGHTS",
    "MODEL.TIMM.PRETRAINED",
    "MODEL.MIX_TRANSFORMER.PRETRAINED",
    "MODEL.PLAIN_VIT.PRETRAINED",
    "MODEL.MESORCH.LOCAL.PRETRAINED",
    "MODEL.MESORCH.GLOBAL.PRETRAINED",
    "INPUT.FACES.CACHE",
    "INPUT.FACES.LIST",
    "INPUT.FACES.LANDMARK_MODEL",
    "INPUT.FACES.YUNET_MODEL",
    "INPUT.FACE_CROP.INDEX",
    "INPUT.FACE_SWAP.AUTOENCODER",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "DATASETS.SOURCES",
    "DATASETS.DDL_ROOT",
    "DATASETS.FOLDER_ROOT",
    "OUTPUT_DIR",
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", metavar="FILE", help="trained weights, .safetensors or .pth")
    parser.add_argument("--config", required=True, metavar="NAME", help="the recipe: a config's name or file")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--name", required=True, help="what the weights are called")
    parser.add_argument("--description", default="", help="one sentence: trained on what, for what")
    parser.add_argument(
        "--norm-batches", type=count, default=0, metavar="N", help="training batches that set batch norms (%(default)s)"
    )
    parser.add_argument("--score-offset", type=float, default=0.0, metavar="X", help="added to logits (%(default)s)")
    add_overwrite(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors" or not math.isfinite(args.score_offset):
        raise ConfigError("--output must end in .safetensors, and --score-offset be a number")
    refuse_existing(args)
    cfg = load_config(args.config, args.opts)
    weights = mean_of([predicting_weights(load_checkpoint_file(path)) for path in args.weights])
    if args.score_offset and _BIAS not in weights:
        raise ConfigError(f"{args.weights[0]}: has no {_BIAS}, so --score-offset cannot be put into it")
    model = build_untrained_model(cfg)
    load_checkpoint(model, {"model": weights}, "the mean of the weights", allow_partial=False)
    if args.norm_batches:
        weights = renormed(model, cfg, args.norm_batches)
    if args.score_offset:
        weights = weights | {_BIAS: weights[_BIAS] + args.score_offset}
    halves = {name: _half(value) for name, value in weights.items()}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(
        str(args.output),
        halves,
        config=portable(cfg).dump(),
        name=args.name,
        description=args.description,
        score_offset=args.score_offset,
        sha256=digest(halves),
    )
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, sha256 of its tensors {digest(halves)}")
    return 0


def mean_of(checkpoints: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor; counters are those of the last checkpoint.

    Raises:
        CheckpointError: they are not of one model.
    """
    first, last = checkpoints[0], checkpoints[-1]
    shapes = {name: value.shape for name, value in first.items()}
    if any({name: value.shape for name, value in one.items()} != shapes for one in checkpoints):
        raise CheckpointError("the checkpoints to average are not of one model")
    return {
        name: torch.stack([one[name] for one in checkpoints]).double().mean(0).to(value.dtype)
        if value.is_floating_point()
        else last[name]
        for name, value in first.items()
    }


def renormed(model: nn.Module, cfg: CfgNode, batches: int) -> dict[str, Tensor]:
    """The weights of a model after its batch norms' statistics were measured anew on training batches of `cfg`."""
    torch.manual_seed(max(cfg.SEED, 0))
    update_bn_stats(model.train(), build_train_loader(cfg), batches)
    return {name: value.detach() for name, value in model.state_dict().items()}


def _half(value: Tensor) -> Tensor:
    return value.to(torch.float16) if value.is_floating_point() else value


def portable(cfg: CfgNode) -> CfgNode:
    """The config without what is true of one machine only."""
    cfg, default = cfg.clone(), get_cfg()
    cfg.defrost()
    add_ddl_config(default)
    for key in _LOCAL:
        *path, last = key.split(".")
        node, fresh = cfg, default
        for part in path:
            node, fresh = node[part], fresh[part]
        node[last] = fresh[last]
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.COMPILE = False
    return cfg


if __name__ == "__main__":
    sys.exit(main())
