#!/usr/bin/env python3
r"""Time an epoch of Loupe's stage 1 on cached tokens and on images, and compare the losses of every step.

    benchmarks/benchmark_tokens.py --data dfdc_pairs --folder tokens
    benchmarks/benchmark_tokens.py --data dfdc_pairs --folder tokens --encoder vit_pe_core_small_patch16_384.fb \
        --steps-on-images 10

Both are trainings by the project's trainer with configs/ddl_i/loupe_cls.yaml in fp32: the same seed, the same order of
images, one process without data workers. The encoder's weights are random, which takes as long. The cache is filled
first, as `ddl-d2 cache-tokens` does, and that is timed, too. --steps-on-images ends the training on images early: its
epoch is then the time of a step times the number of steps. Processor time is that of the process, which other work on
the machine changes less than the time on the wall. The first step of each is left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _machine import machine
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate

from ddl_d2.cli import cache_tokens
from ddl_d2.cli.common import cli_errors, positive
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.io.atomic import write_json
from ddl_d2.utils.malloc import keep_freed_memory


class Clock(NamedTuple):
    """Seconds on the wall, and of the processor."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Clock) -> Clock:
        return Clock(self.wall - start.wall, self.processor - start.processor)

    def times(self, factor: float) -> Clock:
        return Clock(self.wall * factor, self.processor * factor)


class Watched(HookBase):
    """The losses of every step, and the time from the end of the first to the end of the last."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def before_train(self) -> None:
        self.trainer.model.register_forward_hook(
            lambda model, rows, losses: self.losses.append({name: loss.item() for name, loss in losses.items()})
        )

    def after_step(self) -> None:
        self.end = Clock.now()
        if len(self.losses) == 1:
            self.start = self.end

    def of_a_step(self) -> Clock:
        return self.end.since(self.start).times(1 / (len(self.losses) - 1))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="DATASETS.DDL_ROOT")
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="for the tokens, and the trainings")
    parser.add_argument("--encoder", default="vit_pe_core_tiny_patch16_384.fb", help="timm's name (%(default)s)")
    parser.add_argument("--images", type=positive, default=3000, help="of an epoch (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=24, help="images of a step (%(default)s)")
    parser.add_argument("--steps-on-images", type=positive, metavar="N", help="at most (default: the epoch's)")
    parser.add_argument("--threads", type=positive, default=1, help="of PyTorch (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


def config(args: argparse.Namespace, name: str, steps: int, *opts: str) -> CfgNode:
    """The config of a training into a folder of its own."""
    size = args.encoder.partition(".")[0].rpartition("_")[2]
    own = {
        "MODEL.TIMM.NAME": args.encoder,
        "MODEL.TIMM.PRETRAINED": "",
        "MODEL.LOUPE.INPUT_SIZE": size,
        "DATASETS.DDL_ROOT": args.data,
        "DATASETS.TEST": "()",
        "DATALOADER.NUM_WORKERS": "0",
        "SOLVER.AMP.ENABLED": "False",
        "SOLVER.ACCUMULATION_PARTS": "1",
        "SOLVER.IMS_PER_BATCH": str(args.batch_size),
        "SOLVER.MAX_ITER": str(steps),
        "SOLVER.CHECKPOINT_PERIOD": "1000000",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.TAIL_START": "1.0",
        "TEST.EVAL_PERIOD": "0",
        "TEST.BATCH_SIZE": "8",
        "VIS_PERIOD": "0",
        "OUTPUT_DIR": str(args.folder / name),
    }
    return load_config("ddl_i/loupe_cls", [*sum(own.items(), ()), *args.opts, *opts])


def train(cfg: CfgNode) -> Watched:
    """Train, from the same weights each time; returns what was seen."""
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    seed_all_rng(cfg.SEED)
    trainer, watched = ForgeryTrainer(cfg), Watched()
    trainer.register_hooks([watched])
    trainer.train()
    return watched


def fill(args: argparse.Namespace, cfg: CfgNode) -> Clock:
    """Fill the cache; returns the time."""
    path = args.folder / "config.yaml"
    path.write_text(cfg.dump())
    start = Clock.now()
    cache_tokens.main(["--config-file", str(path)])
    return Clock.now().since(start)


def difference(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> float:
    """The largest relative difference of any loss of the steps that both did."""
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=False) for name in a]
    return max(abs(a - b) / abs(a) for a, b in pairs)


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    steps = args.images // args.batch_size
    args.folder.mkdir(parents=True, exist_ok=True)
    cache = ["MODEL.LOUPE.TOKEN_CACHE", str(args.folder / "tokens")]
    figures: dict[str, Any] = machine(args.threads, None, "") | {"encoder": args.encoder, "steps": steps}
    filled = fill(args, config(args, "fill", steps, *cache))
    on_tokens = train(config(args, "on_tokens", steps, *cache))
    on_images = train(config(args, "on_images", min(steps, args.steps_on_images or steps)))
    epochs = {
        "images": on_images.of_a_step().times(steps),
        "tokens": on_tokens.of_a_step().times(steps),
    }
    figures |= {
        "seconds_of_an_epoch": {name: clock._asdict() for name, clock in epochs.items()},
        "seconds_of_filling": filled._asdict(),
        "times_faster": {
            unit: getattr(epochs["images"], unit) / getattr(epochs["tokens"], unit) for unit in Clock._fields
        },
        "steps_on_images": len(on_images.losses),
        "largest_relative_difference": difference(on_images.losses, on_tokens.losses),
        "losses": {"images": on_images.losses, "tokens": on_tokens.losses},
        "bytes": sum(path.stat().st_size for path in (args.folder / "tokens").iterdir()),
    }
    rows = [("filling the cache", *filled), *((f"an epoch on {name}", *clock) for name, clock in epochs.items())]
    print(tabulate(rows, headers=("seconds", "on the wall", "of the processor"), floatfmt=".1f"))
    print(
        f"times faster: {figures['times_faster']['wall']:.1f} on the wall, "
        f"{figures['times_faster']['processor']:.1f} of the processor; losses of {figures['steps_on_images']} steps "
        f"differ by at most {figures['largest_relative_difference']:.1e}; {figures['bytes'] / 10**9:.2f} GB of tokens"
    )
    if args.json:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
