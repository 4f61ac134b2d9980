"""Run a training step again that was stopped since its numbers were not finite, and see where that begins.

    ddl-d2 replay output/failures/iter_1234_rank0.pth
    ddl-d2 replay output/failures/iter_1234_rank0.pth --precision float32

Training leaves such files in OUTPUT_DIR/failures: the batch, the weights before the update, the random numbers and the
config. Exit code 0: all is finite this time, 1: it happens again, 2: the file cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ddl_d2.cli.common import cli_errors
from ddl_d2.engine.replay import Replay, replay
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.utils.precision import PRECISIONS


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="OUTPUT_DIR/failures/iter_<iteration>_rank<rank>.pth")
    parser.add_argument("--precision", choices=("run", *PRECISIONS), default="run", help="default: that of the run")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: that of the run, or else cpu")
    return parser


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    step = StoppedStep.load(args.file)
    used_cuda = "cuda" in step.random_state
    device = args.device or ("cuda" if used_cuda and torch.cuda.is_available() else "cpu")
    precision = step.precision if args.precision == "run" else args.precision
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU")
    if device == "cpu" and precision == "float16":
        parser.error("float16 needs a GPU: give --precision float32")
    print(f"iteration {step.iteration}, rank {step.rank} of {step.world_size}: {', '.join(step.what)}")
    print(f"again on {device} in {precision}")
    result = replay(step, device=device, precision=precision)
    print("\n".join(report(result)))
    return 1 if result.reproduced else 0


def report(result: Replay) -> list[str]:
    """What to say about it, in lines."""
    lines = [] if result.same_numbers else ["note: another kind of device draws other random numbers"]
    lines += [f"not finite in the saved weights: {name}" for name in result.weights[:8]]
    lines.append(f"all images: {result.refused + ' is not finite' if result.refused else _losses(result.losses)}")
    for image_id, losses in result.alone:
        lines.append(f"{image_id} alone: {losses if isinstance(losses, str) else _losses(losses)}")
    lines.append(f"first module whose output is not finite: {result.module or 'none'}")
    lines.append(f"first parameter whose gradient is not finite: {result.parameter or 'none'}")
    lines.append("it happens again" if result.reproduced else "all is finite this time")
    return lines


def _losses(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
