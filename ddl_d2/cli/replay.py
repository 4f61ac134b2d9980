"""Repeat from its record what was done: a training step that was stopped, or an examination.

    ddl-d2 replay output/failures/iter_1234_rank0.pth
    ddl-d2 replay output/failures/iter_1234_rank0.pth --precision float32
    ddl-d2 replay case_17/0001-photo.json
    ddl-d2 replay case_17 --head 5f2c...

A file that ends in .pth is a training step that was stopped since its numbers were not finite; training leaves them in
OUTPUT_DIR/failures: the batch, the weights before the update, the random numbers and the config. It is run again to see
where that begins. Exit code 0: all is finite this time, 1: it happens again, 2: the file cannot be used.

A file that ends in .json is the record of an examination (`ddl-d2 examine`): it is checked and the examination made
again. Exit code 0: the findings are the same to the byte, 1: they differ, and it says what differs, 2: the record, its
chain or the examined file was changed, or is missing. A folder of records: every byte of it is checked against its
chain, and nothing is repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ddl_d2.cli.common import cli_errors
from ddl_d2.engine.replay import Replay, replay
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.report.chain import read_key, verify_chain
from ddl_d2.report.repeat import repeat
from ddl_d2.utils.precision import PRECISIONS


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a .pth, a .json, or a folder of records; see above")
    step = parser.add_argument_group("training steps (.pth)")
    step.add_argument("--precision", choices=("run", *PRECISIONS), default="run", help="default: that of the run")
    step.add_argument("--device", choices=("cpu", "cuda"), help="default: that of the run, or else cpu")
    record = parser.add_argument_group("examination records (.json or a folder)")
    record.add_argument("--input", type=Path, metavar="FILE", help="where the examined file is now")
    record.add_argument("--weights", metavar="FILE", help="where the weights are now")
    record.add_argument("--trust", type=Path, metavar="FILE", help="where the trust anchors are now")
    record.add_argument("--key", type=Path, metavar="FILE", help="key of the chain, to check its HMACs")
    record.add_argument("--head", default="", metavar="SHA256", help="what the chain must end with")
    return parser


@cli_errors()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.file.is_dir() or args.file.suffix == ".json":
        if args.precision != "run" or args.device:
            parser.error("--precision and --device are for training steps (.pth)")
        return _check_folder(args) if args.file.is_dir() else _repeat_examination(args)
    if args.input or args.weights or args.trust or args.key or args.head:
        parser.error("--input, --weights, --trust, --key and --head are for examination records (.json, or a folder)")
    return _repeat_step(args, parser)


def _check_folder(args: argparse.Namespace) -> int:
    lines = verify_chain(args.file, args.key and read_key(args.key), head=args.head)
    print(f"{len(lines)} records, each byte as it was written; the chain ends with {lines[-1]['sha256']}")
    print(_about_key(args, "hmac_sha256" in lines[-1]))
    return 0


def _about_key(args: argparse.Namespace, has_hmac: bool) -> str:
    if args.key:
        return "the HMACs are of this key"
    return "note: the HMACs were not checked (--key)" if has_hmac else "note: the chain has no HMACs (examine --key)"


def _repeat_examination(args: argparse.Namespace) -> int:
    if args.head:
        verify_chain(args.file.parent, args.key and read_key(args.key), head=args.head)
    result = repeat(
        args.file,
        file=args.input,
        weights=args.weights,
        trust=args.trust,
        key=args.key and read_key(args.key),
    )
    if not result.chained:
        print("note: no chain lies beside the record, so only its findings were checked")
    print("\n".join(result.differences) or "made with the same versions, on the same kind of device")
    print(f"sha256 of the findings: {result.findings_sha256}")
    print("the findings are the same to the byte" if result.same else "the findings are not the same")
    return 0 if result.same else 1


def _repeat_step(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
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
