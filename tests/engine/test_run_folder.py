"""OUTPUT_DIR: a run in it is not replaced unasked, and two runs do not share it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket

import pytest

from ddl_d2.cli import train as train_command
from ddl_d2.engine import run_folder
from ddl_d2.engine.run_folder import LOCK, claimed, clear_run, refuse_finished
from ddl_d2.errors import InputError
from tests.engine.test_resumed_settings import CONFIG, SMALL

FORK = multiprocessing.get_context("fork")


def _hold(folder, ready):
    with claimed(folder):
        ready.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed `tmp_path`."""
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def test_a_second_run_is_refused_and_told_who_has_the_folder(holder, tmp_path):
    who = re.escape(f"{tmp_path}: process {holder.pid} on {socket.gethostname()} trains in this folder")
    with pytest.raises(InputError, match=who), claimed(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()


def test_a_killed_run_has_no_claim(holder, tmp_path):
    holder.kill()
    holder.join()
    assert (tmp_path / LOCK).exists()
    with claimed(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    assert not (tmp_path / LOCK).exists()


def test_a_claim_ends_with_its_block(tmp_path):
    with pytest.raises(SystemExit), claimed(tmp_path / "new"):
        raise SystemExit(143)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "free"),
    [
        ("{host} {gone}", True),
        ("{host} {alive}", False),
        ("elsewhere {gone}", False),
        ("", True),
        ("half of a lin", True),
    ],
)
def test_without_locks_the_file_decides(tmp_path, monkeypatch, said, free):
    monkeypatch.setattr(run_folder, "fcntl", None)
    ended = FORK.Process(target=int)
    ended.start()
    ended.join()
    said = said.format(host=socket.gethostname(), gone=ended.pid, alive=os.getppid())
    (tmp_path / LOCK).write_text(said)
    if free:
        with claimed(tmp_path):
            pass
    else:
        with pytest.raises(InputError, match="trains in this folder"), claimed(tmp_path):
            pass


@pytest.mark.parametrize("name", ["model_0000009.pth", "model_final.pth", "model_best.safetensors"])
def test_a_run_is_recognized_and_cleared(tmp_path, name):
    others = ("pretrained.pth", "notes.txt", "config.yaml")
    for other in (*others, name, "metrics.json", "last_checkpoint"):
        (tmp_path / other).touch()
    with pytest.raises(InputError, match=rf"holds a run \({name}\): --resume goes on with it, --overwrite deletes"):
        refuse_finished(tmp_path)
    clear_run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(others)
    refuse_finished(tmp_path)
    refuse_finished(tmp_path / "not there")


def test_the_command_line(tiny_set, tmp_path, capsys):
    """Train; again is refused and changes nothing; evaluating beside it leaves its config; --overwrite trains anew."""
    words = ["--config-file", CONFIG, *SMALL, "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path)]
    words += ["SOLVER.MAX_ITER", "1", "SOLVER.CHECKPOINT_PERIOD", "1"]
    train_command.main(words)
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.iterdir()}
    assert LOCK not in before
    for more in ([], ["SOLVER.BASE_LR", "1.0"]):
        with pytest.raises(SystemExit, match="2"):
            train_command.main([*words, *more])
        # The last line: loggers of earlier tests may still write to what these had captured, and complain.
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: {tmp_path} holds a run (model_final.safetensors): --resume")
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.iterdir()} == before
    config = (tmp_path / "config.yaml").read_text()
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), "DATASETS.TEST", "('ddl_i_valid',)"]
    train_command.main(["--eval-only", *words, *weights, "INPUT.MIN_SIZE_TEST", "64"])
    assert (tmp_path / "config.yaml").read_text() == config
    assert "model_final.pth" in (tmp_path / "inference/config.yaml").read_text()
    with pytest.raises(SystemExit, match="2"):
        train_command.main(["--resume", "--overwrite", *words])
    train_command.main(["--overwrite", *words, "SOLVER.BASE_LR", "0.5"])
    assert "BASE_LR: 0.5" in (tmp_path / "config.yaml").read_text()
    assert len((tmp_path / "metrics.json").read_text().splitlines()) == 1
