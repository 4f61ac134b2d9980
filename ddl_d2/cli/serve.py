"""Serve a page on this machine that examines images and short clips, and the same by HTTP for programs.

    ddl-d2 serve
    ddl-d2 serve --weights a.safetensors --weights b.safetensors --port 8080
    curl --data-binary @photo.jpg "http://127.0.0.1:8000/api/predict?name=photo.jpg"

It listens on 127.0.0.1 only, asks for nothing elsewhere and keeps nothing: an image is never written to the disk, a
clip is deleted when it has been examined. http://127.0.0.1:8000/api says what it takes and answers. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Mapping, Sequence

import torch

from ddl_d2.cli.common import cli_errors, count, positive, probability
from ddl_d2.errors import InputError, InstallError
from ddl_d2.inference.model import load_model
from ddl_d2.report.examination import Examiner
from ddl_d2.report.model_facts import model_facts
from ddl_d2.serve.limits import Limits
from ddl_d2.serve.service import Service

_HOST = "127.0.0.1"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FILE",
        help="trained weights, once or more often (default: shipped)",
    )
    parser.add_argument("--calibration", action="append", metavar="FILE", help="one for each --weights, in their order")
    parser.add_argument(
        "--threshold",
        type=probability,
        help="a score above it is fake, uncalibrated (without a calibration: 0.5)",
    )
    parser.add_argument("--port", type=count, default=8000, metavar="N", help="0: one that is free (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (%(default)s)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the computation (%(default)s)")
    parser.add_argument("--frames", type=positive, default=16, metavar="N", help="of a clip to look at (%(default)s)")
    parser.add_argument("--max-mb", type=positive, default=32, metavar="N", help="of an upload (%(default)s)")
    parser.add_argument("--max-pixels", type=positive, default=4 * 10**7, metavar="N", help="of an image (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=120, metavar="N", help="of an answer (%(default)s)")
    parser.add_argument("--waiting", type=count, default=4, metavar="N", help="uploads that may wait (%(default)s)")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        from ddl_d2.serve.server import make_server
    except ImportError as error:
        raise InstallError(f"the service needs {error.name}: run `pip install fastapi uvicorn`") from error
    weights, calibrations = args.weights or [None], args.calibration or []
    if calibrations and len(calibrations) != len(weights):
        raise InputError(f"{len(calibrations)} calibrations for {len(weights)} weights: give one for each, or none")
    limits = Limits(
        max_bytes=args.max_mb * 2**20, max_pixels=args.max_pixels, seconds=args.seconds, waiting=args.waiting
    )
    torch.set_num_threads(args.threads)
    service = Service(_loader(args, weights, calibrations or [None] * len(weights)), limits)
    server = make_server(service)
    service.on_error = lambda: setattr(server, "should_exit", True)
    with socket.create_server((_HOST, args.port)) as listening:
        print(f"http://{_HOST}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        server.run(sockets=[listening])
    if service.error is not None:
        raise service.error
    return 0


def _loader(
    args: argparse.Namespace, weights: Sequence[str | None], calibrations: Sequence[str | None]
) -> Callable[[], Mapping[str, Examiner]]:
    """What loads the models; those of one name are numbered."""

    def load() -> dict[str, Examiner]:
        found: dict[str, Examiner] = {}
        for path, calibration in zip(weights, calibrations, strict=True):
            examiner = Examiner(
                load_model(path, device=args.device, threshold=args.threshold, calibration=calibration),
                frames=args.frames,
            )
            name = model_facts(examiner.model)["name"]
            found[name if name not in found else f"{name}-{len(found) + 1}"] = examiner
        return found

    return load
