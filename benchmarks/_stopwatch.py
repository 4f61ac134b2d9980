"""Time and memory of what this process computes, a GPU's included."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn


class Stopwatch:
    """Milliseconds, a GPU's work included."""

    def __init__(self, device: str):
        self.cuda = device == "cuda"

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return 1000 * time.perf_counter()

    @contextmanager
    def record(self, name: str, times: dict[str, list[float]]) -> Iterator[None]:
        start = self.now()
        yield
        times.setdefault(name, []).append(self.now() - start)

    def watch(self, name: str, module: nn.Module, times: dict[str, list[float]]) -> list:
        """Hooks that record every call of `module`."""
        started = []
        before = module.register_forward_pre_hook(lambda *_: started.append(self.now()))
        after = module.register_forward_hook(lambda *_: times.setdefault(name, []).append(self.now() - started.pop()))
        return [before, after]


def peak_memory(device: str, function: Callable[[], object]) -> dict[str, float]:
    """MiB in use before `function`, and the most that there were during it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return {"before": before / 2**20, "peak": torch.cuda.max_memory_allocated() / 2**20}
    before = _resident_mib("VmRSS")
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    function()
    return {"before": before, "peak": _resident_mib("VmHWM")}


def _resident_mib(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: the process's highest, in bytes on a Mac
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) / 1024
