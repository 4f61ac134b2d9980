import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ddl_d2.utils.processes import die_with_parent, guarded, start_worker
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the death of its children")


class _Pids(Dataset):
    def __init__(self, hang=False):
        self.hang = hang

    def __len__(self):
        return 4

    def __getitem__(self, index):
        while self.hang:
            time.sleep(0.05)
        return os.getpid()


def _gone(pid, seconds=5.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_no_workers_nothing_to_guard():
    loader = DataLoader(_Pids())
    assert guarded(loader, 5.0) is loader
    assert loader.timeout == 0


def test_a_signal_to_all_processes_of_a_job_does_not_end_workers():
    loader = guarded(DataLoader(_Pids(), batch_size=None, num_workers=1), 10.0)
    batches = iter(loader)
    worker = next(batches)
    os.kill(worker, signal.SIGTERM)  # from their parent it ends them, as DataLoader itself does in the end
    assert _gone(worker)

    batches = iter(guarded(DataLoader(_Pids(), batch_size=None, num_workers=1), 10.0))
    worker = next(batches)
    pid = os.fork()
    if pid == 0:
        os.kill(worker, signal.SIGTERM)
        os._exit(0)
    os.waitpid(pid, 0)
    assert list(batches) == [worker] * 3


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_threads_of_libraries_hold_sigterm_back_too(method, tmp_path):
    """In a process of its own: the first workers start a resource tracker, which lets the signal through again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "from torch.utils.data import DataLoader\n"
        "from ddl_d2.utils.processes import guarded\n"
        "from tests.utils.test_processes import _Pids\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method(sys.argv[1])\n"
        "    batches = iter(guarded(DataLoader(_Pids(), batch_size=None, num_workers=1)))\n"
        "    for thread in Path(f'/proc/{next(batches)}/task').iterdir():\n"
        "        print(next(x for x in (thread / 'status').read_text().splitlines() if x.startswith('SigBlk')))\n"
    )
    command = [sys.executable, script, method]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    blocked = [int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1 for line in done.stdout.splitlines()]
    assert len(blocked) > 2
    assert sum(blocked) >= len(blocked) - 1  # the one that waits for the signal


def test_a_worker_that_hangs_is_an_error():
    loader = guarded(DataLoader(_Pids(hang=True), batch_size=None, num_workers=1), 0.5)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out after 0.5 seconds"):
        next(iter(loader))
    assert time.monotonic() - started < 20


def _parent(pipe, method):
    torch.multiprocessing.set_start_method(method, force=True)
    batches = iter(guarded(DataLoader(_Pids(), batch_size=None, num_workers=2)))
    pipe.send([next(batches), next(batches)])
    time.sleep(60)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_end_with_a_parent_that_is_killed(method):
    # A process of its own: a forked one would take a fork server of this process for its own.
    context = torch.multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    parent = context.Process(target=_parent, args=(there, method))
    parent.start()
    assert here.poll(120)
    workers = here.recv()
    assert len(set(workers)) == 2
    parent.kill()
    parent.join()
    assert all(_gone(worker) for worker in workers)


def test_a_parent_that_was_gone_before(tmp_path):
    # The child of a child asks only after its parent has ended.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        grandchild = os.fork()
        if grandchild == 0:
            parent = os.getppid()
            while os.getppid() == parent:
                time.sleep(0.01)
            import multiprocessing

            ended, kept = os.pipe()
            os.close(kept)
            multiprocessing.process._parent_process = type("Parent", (), {"pid": parent, "sentinel": ended})()
            os.close(reading)
            die_with_parent()
            os.write(writing, b"survived")
            os._exit(0)
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b""


def test_a_forked_worker_leaves_inherited_garbage_alone():
    """Else it might free what owns threads of the parent, and wait for them for ever."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("nothing is forked here")

    class Cycle:
        def __del__(self):
            if os.getpid() != parent:
                os._exit(1)

    parent = os.getpid()
    gc.disable()
    try:
        cycle = Cycle()
        cycle.own = cycle
        del cycle
        process = multiprocessing.get_context("fork").Process(target=_start_and_collect)
        process.start()
        process.join(30)
        assert process.exitcode == 0
    finally:
        gc.enable()
        gc.collect()  # or a worker of a later test would meet it


def _start_and_collect():
    start_worker(0)
    gc.collect()
