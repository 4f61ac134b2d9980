#!/usr/bin/env python3
"""Time a system on clips (BATFD) from frames and samples to segments, and measure its memory.

    python benchmarks/benchmark_clip.py                                       # published size and two-core size, 10 s
    python benchmarks/benchmark_clip.py --config lav_df/batfd_plus --threads 2 --rounds 3
    python benchmarks/benchmark_clip.py --config two_cores/batfd_plus_self_forged --seconds 1800 --rounds 1

The clip is made up (noise in picture and sound), the weights are random: neither changes what is computed. Printed are
wall and CPU seconds, how many times real time that is, and the most memory that the process held. A clip longer than
the network sees at once is predicted in windows. On a busy machine wall time says little: with `--threads N`, CPU
seconds / N is what N quiet cores take at least.

Every config is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from _machine import machine
from tabulate import tabulate

from ddl_d2.io.atomic import write_json

CONFIGS = ("lav_df/batfd_plus", "two_cores/batfd_plus_self_forged")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", nargs="+", default=list(CONFIGS), metavar="NAME", help="configs of clip systems")
    add("--seconds", type=float, default=10.0, help="length of the clip (default 10)")
    add("--rounds", type=int, default=3, help="predictions that count, after one that does not (default 3)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is by autocast")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add("--one", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure each config in a process of its own; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.one:
        print(json.dumps(measured(arguments.one, arguments)))
        return 0
    rows = []
    for name in arguments.config:
        command = [sys.executable, __file__, "--one", name, "--seconds", str(arguments.seconds)]
        command += ["--rounds", str(arguments.rounds), "--threads", str(arguments.threads), "--dtype", arguments.dtype]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    headers = {"config": "config", "wall": "wall s", "cpu": "CPU s", "real_time": "x real time", "quiet": "CPU/threads",
               "memory": "GiB"}  # fmt: skip
    print(tabulate([{headers[key]: row[key] for key in headers} for row in rows], headers="keys", floatfmt=".2f"))
    if arguments.json:
        write_json(
            arguments.json,
            {"machine": machine(arguments.threads, None, ""), "seconds": arguments.seconds, "results": rows},
        )
    return 0


def measured(name: str, arguments: argparse.Namespace) -> dict[str, float | str]:
    """Predict a made-up clip with the system of a config, and say what it took."""
    import torch
    from detectron2.modeling import build_model

    import ddl_d2.modeling  # noqa: F401  registers the systems
    from ddl_d2.data.datasets import load_config
    from ddl_d2.utils.precision import autocast

    torch.set_num_threads(arguments.threads)
    cfg = load_config(name, ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "", "MODEL.BATFD.REMEMBERED_FRAMES", "0"])
    model = build_model(cfg).eval()
    frames, side = round(arguments.seconds * cfg.INPUT.CLIP.FPS), cfg.INPUT.CLIP.SIZE
    row = {
        "frames": torch.randint(0, 256, (3, frames, side, side), dtype=torch.uint8),
        "audio": torch.randn(frames * cfg.INPUT.CLIP.AUDIO_RATE // cfg.INPUT.CLIP.FPS) * 0.1,
        "num_frames": frames,
        "fps": float(cfg.INPUT.CLIP.FPS),
        "has_audio": True,
    }
    walls, cpus = [], []
    with autocast("cpu", arguments.dtype):
        for turn in range(arguments.rounds + (arguments.rounds > 1)):
            wall, cpu = time.perf_counter(), time.process_time()
            model([row])
            if turn or arguments.rounds == 1:
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
    best = min(walls)
    return {
        "config": name,
        "wall": best,
        "cpu": min(cpus),
        "real_time": best / arguments.seconds,
        "quiet": min(cpus) / arguments.threads / arguments.seconds,
        "memory": peak_memory(),
    }


def peak_memory() -> float:
    """Return the most memory that this program held, GiB; `ru_maxrss` would count that of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


if __name__ == "__main__":
    sys.exit(main())
