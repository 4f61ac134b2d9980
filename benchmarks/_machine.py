"""The machine, the versions and the commit that figures were measured with."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def machine(threads: int, gpu: str | None, op: str) -> dict:
    return {
        "processor": processor_name(),
        "gpu": gpu,
        "threads": threads,
        "op": op,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers") if importlib.util.find_spec("transformers") else None,
        "git_commit": git_commit(),
    }


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or not a checkout
