"""What the launcher makes of how its ranks end. For real ones: trials/ranks.py, in short in test_crash.py."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from argparse import Namespace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from ddl_d2.engine import launch as module
from ddl_d2.engine.launch import Ranks, launch
from ddl_d2.engine.watchdog import STOP, TRAINS
from ddl_d2.errors import ConfigError, RankError, SaveError
from tests.conftest import ROOT

ARGS = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")


def _ranks(works, tmp_path, monkeypatch, grace=5.0):
    """Ranks that are forked and run `works[rank](launcher, report)` instead of a main function."""

    def run(local_rank, launcher, report, work):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        works[local_rank](launcher, report)

    monkeypatch.setattr(module, "_run_rank", run)
    monkeypatch.setattr(module.torch.multiprocessing, "get_context", lambda _: multiprocessing.get_context("fork"))
    monkeypatch.setattr(module, "_SETTLE", 0.3)
    return Ranks(print, ARGS, timeout=timedelta(seconds=9), grace=grace, folder=tmp_path)


def _sleep(launcher, report):
    time.sleep(60)


def _raises(error):
    def work(launcher, report):
        module._write_report(report, error)
        os._exit(1)

    return work


def _ends(code):
    return lambda launcher, report: os._exit(code)


def _killed(launcher, report):
    os.kill(os.getpid(), signal.SIGKILL)


def _trains(launcher, report):
    """Saves and stops when asked to."""
    launcher.send_bytes(TRAINS)
    assert launcher.recv_bytes() == STOP
    os._exit(143)


class _NoPickle(RuntimeError):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


@pytest.mark.parametrize(
    ("works", "error", "message"),
    [
        ([_sleep, _killed], RankError, r"^rank 1 \(process \d+\) was killed by SIGKILL; rank 0 was ended$"),
        ([_ends(3), _sleep], RankError, "^rank 0 .* ended with exit code 3; rank 1 was ended$"),
        ([_sleep, _ends(124)], RankError, r"^rank 1 \(process \d+\) hung \(see above\); rank 0 was ended$"),
        # The one that was killed is the cause, whichever is noticed first.
        (
            [_raises(RuntimeError("reset by peer")), _killed],
            RankError,
            "^rank 1 .* by SIGKILL; rank 0 failed: .*reset by",
        ),
        ([_sleep, _raises(ConfigError("bad key"))], ConfigError, "^bad key$"),
        (
            [_sleep, _raises(_NoPickle("x", "y"))],
            RankError,
            "^rank 1 .* failed: _NoPickle: x and y; rank 0 was ended\n",
        ),
    ],
)
def test_the_cause_is_named_and_all_end(works, error, message, tmp_path, monkeypatch, capfd):
    with pytest.raises(error, match=message), _ranks(works, tmp_path, monkeypatch) as ranks:
        ranks.wait()
    assert all(rank.process.exitcode is not None for rank in ranks.ranks)
    if error is ConfigError:
        assert "rank 1" in capfd.readouterr().err


def test_the_survivors_are_not_asked_to_save(tmp_path, monkeypatch):
    def survives(launcher, report):
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "asked").touch())
        launcher.send_bytes(TRAINS)
        launcher.recv_bytes()
        (tmp_path / "asked").touch()

    with pytest.raises(RankError), _ranks([survives, _ends(1)], tmp_path, monkeypatch) as ranks:
        ranks.wait()
    assert ranks.ranks[0].process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "asked").exists()


def test_all_is_well(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with _ranks([_ends(0), _ends(0)], tmp_path, monkeypatch) as ranks:
        ranks.wait()
    assert signal.getsignal(signal.SIGTERM) is before


def _exit_code(ranks):
    with pytest.raises(SystemExit) as caught:
        ranks.wait()
    return caught.value.code


@pytest.mark.parametrize(
    "works",
    [
        [_trains, _trains],
        [_trains, _ends(143)],  # one alone was asked to
        [_trains, _sleep],  # one has not come to its training
        [_sleep, _ends(143)],
    ],
)
def test_a_stop_is_passed_on(works, tmp_path, monkeypatch):
    with _ranks(works, tmp_path, monkeypatch) as ranks:
        while not ranks.ranks[0].pipe.poll() and works[0] is _trains:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        assert _exit_code(ranks) == 143


def test_what_fails_for_want_of_a_stopped_rank_is_no_failure_but_a_failed_save_is(tmp_path, monkeypatch):
    def late(error):
        def work(launcher, report):
            launcher.send_bytes(TRAINS)
            launcher.recv_bytes()
            _raises(error)(launcher, report)

        return work

    def outcome(error):
        with _ranks([late(error), _ends(143)], tmp_path, monkeypatch) as ranks:
            assert ranks.ranks[0].pipe.poll(10)
            ranks.wait()

    with pytest.raises(SystemExit):
        outcome(RuntimeError("connection closed by peer"))
    with pytest.raises(SaveError, match="full"):
        outcome(SaveError("full"))


def test_ranks_that_do_not_stop_are_killed_after_the_grace(tmp_path, monkeypatch):
    def deaf(launcher, report):
        launcher.send_bytes(TRAINS)
        time.sleep(60)

    started = time.monotonic()
    with _ranks([deaf, deaf], tmp_path, monkeypatch, grace=0.5) as ranks:
        assert all(rank.pipe.poll(10) for rank in ranks.ranks)
        os.kill(os.getpid(), signal.SIGTERM)
        assert _exit_code(ranks) == 143
    assert time.monotonic() - started < 10


def test_a_second_sigterm_ends_all_at_once(tmp_path, monkeypatch):
    def deaf(launcher, report):
        launcher.send_bytes(TRAINS)
        time.sleep(60)

    with _ranks([deaf, deaf], tmp_path, monkeypatch, grace=60) as ranks:
        assert all(rank.pipe.poll(10) for rank in ranks.ranks)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert _exit_code(ranks) == 143


def test_a_report(tmp_path):
    module._write_report(str(tmp_path / "r"), ConfigError("bad key"))
    error, line, trace = pickle.loads((tmp_path / "r").read_bytes())
    assert isinstance(error, ConfigError)
    assert line == "ConfigError: bad key"
    assert trace.endswith("ConfigError: bad key\n")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--num-gpus 2: this machine has 1"):
        launch(print, ARGS)


def test_an_automatic_address_is_for_one_machine(tmp_path):
    args = Namespace(**vars(ARGS) | {"num_machines": 2})
    with pytest.raises(ConfigError, match="for one machine"):
        Ranks(print, args, timeout=timedelta(seconds=9), grace=1.0, folder=tmp_path)


def test_one_process_is_this_one():
    seen = []
    launch(seen.append, SimpleNamespace(num_gpus=0, num_machines=1))
    assert len(seen) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crash_in_compiled_code_says_where(processes, tmp_path):
    script = tmp_path / "crashes.py"
    script.write_text(
        "import os\n"
        "from argparse import Namespace\n"
        "from ddl_d2.engine.launch import launch\n"
        "def falls_over(args):\n"
        "    os.abort()\n"
        "if __name__ == '__main__':\n"
        f"    launch(falls_over, Namespace(num_gpus={processes}, num_machines=1, machine_rank=0, dist_url='auto'))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "Fatal Python error: Aborted" in done.stderr
    assert "falls_over" in done.stderr
