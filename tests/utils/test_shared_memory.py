"""Too little shared memory, as a container has by default: named at once, with the remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader

from ddl_d2.errors import InputError
from ddl_d2.utils.processes import guarded
from ddl_d2.utils.shared_memory import InSharedMemory, explained_shared_memory
from tests.conftest import ROOT
from tests.engine.test_resumed_settings import CONFIG, SMALL

REMEDY = r"is too small for the batches of data workers: set DATALOADER\.NUM_WORKERS 0 .*docker run --shm-size 8g"


@pytest.fixture
def no_room(monkeypatch):
    def refuse(tensor):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)


def test_a_worker_without_room_is_an_error_at_once(no_room, make_row):
    """Not a batch that is lost and waited for."""
    started = time.monotonic()
    loader = guarded(DataLoader([make_row()], num_workers=1, collate_fn=list, multiprocessing_context="fork"), 60.0)
    with pytest.raises(InputError, match=REMEDY), explained_shared_memory():
        next(iter(loader))
    assert time.monotonic() - started < 30


def test_all_tensors_of_a_row_are_moved(make_row, monkeypatch):
    monkeypatch.setattr("ddl_d2.utils.shared_memory.get_worker_info", lambda: True)
    row = make_row() | {"crops": [{"image": torch.zeros(3)}]}
    (moved,) = InSharedMemory(list)([row])
    tensors = [moved["image"], moved["forgery_mask"], moved["crops"][0]["image"]]
    tensors += [moved["instances"].gt_classes, moved["instances"].gt_masks.tensor]
    assert all(tensor.is_shared() for tensor in tensors)


@pytest.mark.parametrize(
    "said", ["DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are"]
)
def test_other_words_for_it(said):
    with pytest.raises(InputError, match=REMEDY), explained_shared_memory():
        raise RuntimeError(said)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="^CUDA error$"), explained_shared_memory():
        raise RuntimeError("CUDA error")


def _small_shared_memory() -> list[str]:
    """Return a command line that runs what follows with a /dev/shm of 1 MB; skips where that is not allowed."""
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no mounts of one's own here")
    return command


def test_the_command_line(tiny_set, tmp_path):
    words = ["--config-file", CONFIG, *SMALL, "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path)]
    words += ["DATALOADER.NUM_WORKERS", "2", "SOLVER.IMS_PER_BATCH", "128"]
    command = [*_small_shared_memory(), sys.executable, "tools/train_net.py", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "/dev/shm (1 MB), is too small" in error
