"""The processes that `benchmark_model.py` measures: one model each, told what to do by lines of JSON on stdin.

Every candidate has a process of its own, because the C library reads its allocator's settings once, at the start.
Between its turns a process waits for the next line.
"""

from __future__ import annotations

import json
import os
import sys

import torch
from _job import Job
from _our_model import OurModel
from _peer import Peer
from _stopwatch import Stopwatch, peak_memory

from ddl_d2.layers.ms_deform_attn import extension_status
from ddl_d2.utils.malloc import keep_freed_memory


class Worker:
    """Answers the requests of `benchmark_model.py`: the public methods are the requests by name."""

    def build(self, **job) -> dict:
        self.job = Job(**job)
        if self.job.threads:
            torch.set_num_threads(self.job.threads)
        if self.job.keep_memory:
            keep_freed_memory()
        self.candidate = (OurModel if self.job.candidate == "ddl_d2" else Peer)(self.job)
        self.work = self.candidate.train if self.job.training else self.candidate.infer
        gpu = torch.cuda.get_device_name() if self.job.device == "cuda" else None
        op = extension_status()
        kernels = f"compiled, {op.cpu_capability} on CPUs" if op.available else f"not compiled ({op.reason})"
        return {"threads": torch.get_num_threads(), "gpu": gpu, "op": kernels}

    def predict(self, path: str) -> dict:
        """Write logits, masks and maps, as in inference, to `path`."""
        self.candidate.model.eval()
        outputs = self.candidate.predictions()
        outputs["maps"] = torch.stack(self.candidate.infer()).clamp(0, 1)
        torch.save({name: value.float().cpu() for name, value in outputs.items()}, path)
        self.candidate.model.train(self.job.training)
        return {}

    def step(self) -> dict:
        stopwatch, times = Stopwatch(self.job.device), {}
        with stopwatch.record("step", times):
            result = self.work()
        return {"ms": times["step"][0], "loss": result if self.job.training else None}

    def memory(self) -> dict:
        answer = {}
        mib = peak_memory(self.job.device, lambda: answer.update(self.step()))
        return answer | {"mib": mib}

    def profile(self, rounds: int) -> dict:
        return {"stages": self.candidate.profile(rounds)}


def main() -> int:
    # Answers have stdout for themselves; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(reply), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
