"""What the trials of surviving a crash share: the smallest real training, in a process that can be killed.

Linux only: they look into /proc.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ddl_d2.checkpoint.resume import damage_of, read_lightly
from ddl_d2.cli import train as train_command
from ddl_d2.data.datasets import load_config
from ddl_d2.errors import CheckpointError
from ddl_d2.utils.processes import die_with_parent
from tests.conftest import ROOT, TINY

SWIN_UNET = "configs/two_cores/swin_unet_efficientnet_lite0.yaml"
MASK2FORMER = "configs/quickstart/mask2former_efficientnet_lite0.yaml"
CONFIG = str(ROOT / MASK2FORMER)
# Two images a step, or one for each of two processes.
OPTIONS = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64",
    "INPUT.CROP.SIZE", "[64, 64]",
    "DATASETS.TEST", "()",
    "TEST.EVAL_PERIOD", "0",
    "VIS_PERIOD", "0",
]  # fmt: skip


def words(data: Path, output: Path, *flags: str, **options: object) -> list[str]:
    """The words after train_net.py: `flags` as they are, `options` with `__` for a dot."""
    more = [word for key, value in options.items() for word in (key.replace("__", "."), str(value))]
    common = ["--config-file", CONFIG, "--dist-url", "auto", *flags, *OPTIONS]
    return [*common, "DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), *more]


def small_config(data: Path, output: Path, *changes: object, config: str = SWIN_UNET) -> CfgNode:
    """The config of the smallest training on a set of `make_tiny_set`; `changes` are KEY, VALUE, KEY, VALUE, ..."""
    output.mkdir(parents=True, exist_ok=True)
    common = ["DATASETS.DDL_ROOT", data, "OUTPUT_DIR", output, "SOLVER.CHECKPOINT_PERIOD", 1000, "SEED", 7]
    common += ["INPUT.SELF_BLEND.ENABLED", False]
    return load_config(ROOT / config, [*OPTIONS, *map(str, [*common, *changes])])


class Process:
    """A training, the leader of a process group of its own; what it says goes to a file."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.code: int | None = None

    @classmethod
    def start(cls, command: Sequence[str], log: Path, **environment: str) -> Process:
        """A process as a user would start it."""
        with open(log, "wb") as out:
            started = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return cls(started.pid, log)

    @classmethod
    def fork(cls, work: Callable[[], object], log: Path) -> Process:
        """`work` in a child of this process, which spares it the imports. Its exit code is as that of a script."""
        log.unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(_as_script(work, log))
        return cls(pid, log)

    def poll(self) -> int | None:
        """The exit code (minus the signal, if one ended it), or None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it has not ended in that time (then the whole group is killed)."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        code = self.code
        if code is None:
            self.kill_group()
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL
        return code

    def wait_for(self, pattern: str, seconds: float) -> bool:
        """Whether the log came to match while the process ran."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = self.poll() is not None
            if re.search(pattern, self.text()):
                return True
            if ended:
                return False
            time.sleep(0.02)
        return False

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end_of_text(self) -> str:
        return "..." + self.text()[-1500:]

    def send(self, number: int, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def kill_group(self) -> None:
        self.send(signal.SIGKILL, group=True)

    def descendants(self) -> dict[int, str]:
        """Process id -> command line of all its children, and theirs."""
        found: dict[int, str] = {}
        parents = [self.pid]
        while parents:
            of_one = children(parents.pop())
            found |= of_one
            parents += of_one
        return found

    def ranks(self) -> list[int]:
        """Ids of the ranks that the launcher has started, in order."""
        return sorted(pid for pid, line in children(self.pid).items() if "spawn_main" in line)


def children(pid: int) -> dict[int, str]:
    """Process id -> command line."""
    try:
        numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(n): Path(f"/proc/{n}/cmdline").read_text().replace("\0", " ") for n in numbers}
    except (FileNotFoundError, ProcessLookupError):
        return {}


def alive(pids: Sequence[int]) -> list[int]:
    """Those of them that still run (zombies do not)."""
    running = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                running.append(pid)
    return running


def train(arguments: Sequence[str]) -> None:
    """What `python tools/train_net.py arguments` does."""
    sys.exit(train_command.main(arguments))


def whole(folder: Path) -> dict[str, int]:
    """The checkpoints in `folder` of which every byte is right: name -> iteration."""
    found = {}
    for path in folder.glob("*.pth"):
        with contextlib.suppress(CheckpointError):
            if damage_of(path) is None:
                found[path.name] = int(read_lightly(path)["iteration"])
    return found


def _as_script(work: Callable[[], object], log: Path) -> int:
    try:
        os.setsid()
        die_with_parent()
        # The threads of the process this one was forked from are not here; of its own, one will do.
        torch.set_num_threads(1)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
        work()
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (as the interpreter does)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
