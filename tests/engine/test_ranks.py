"""What becomes of a run when its ranks end in some way. For real ones: trials/ranks.py, in short in test_crash.py."""

import os
import pickle
import signal
import time
from functools import partial

import pytest

from ddl_d2.engine import ranks as module
from ddl_d2.engine.ranks import Ranks, write_report
from ddl_d2.errors import ConfigError, RankError, SaveError


def _ranks(works, folder, monkeypatch, grace=5.0):
    """Ranks that are forked, each of which does its own of `works`."""

    def work(local_rank):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        works[local_rank]()

    start = module.start_processes
    monkeypatch.setattr(module, "start_processes", lambda *args, **how: start(*args, **how | {"start_method": "fork"}))
    monkeypatch.setattr(module, "SETTLE", 0.3)
    return Ranks(work, len(works), grace=grace, folder=folder)


def _sleep():
    time.sleep(60)


def _raises(error):
    def work():
        raise error

    return work


def _ends(code):
    return partial(os._exit, code)


def _killed():
    os.kill(os.getpid(), signal.SIGKILL)


class _Training:
    """The work of a rank that hears SIGTERM: it says that it trains, then waits for the signal."""

    def __init__(self, said, then):
        self.said, self.then = said, then

    def __call__(self):
        heard = []
        signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
        self.said.touch()
        while not heard:
            time.sleep(0.01)
        self.then()

    def wait(self):
        while not self.said.exists():
            time.sleep(0.01)


class _NoPickleError(RuntimeError):
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
            [_sleep, _raises(_NoPickleError("x", "y"))],
            RankError,
            "^rank 1 .* failed: _NoPickleError: x and y; rank 0 was ended\n",
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
    survivor = _Training(tmp_path / "trains", then=(tmp_path / "asked").touch)

    def fails():
        survivor.wait()
        os._exit(1)

    with pytest.raises(RankError), _ranks([survivor, fails], tmp_path, monkeypatch) as ranks:
        ranks.wait()
    assert ranks.ranks[0].process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "asked").exists()


def test_all_is_well(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with _ranks([_ends(0), _ends(0)], tmp_path, monkeypatch) as ranks:
        ranks.wait()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def _stop(ranks, signals=1, number=signal.SIGTERM):
    """Send a signal to this process; return the exit code of the run."""
    for _ in range(signals):
        os.kill(os.getpid(), number)
    with pytest.raises(SystemExit) as caught:
        ranks.wait()
    return caught.value.code


@pytest.mark.parametrize(
    "others",
    [
        "trains",
        "was stopped alone",
        "has not come to its training",
    ],
)
def test_a_stop_is_passed_on(others, tmp_path, monkeypatch):
    saves = _Training(tmp_path / "trains", then=lambda: ((tmp_path / "saved").touch(), os._exit(143)))
    other = {"trains": _Training(tmp_path / "too", then=_ends(143)), "was stopped alone": _ends(143)}.get(
        others, _sleep
    )
    with _ranks([saves, other], tmp_path, monkeypatch) as ranks:
        saves.wait()
        assert _stop(ranks) == 143
    assert (tmp_path / "saved").exists()


def test_a_rank_that_stops_alone_stops_all(tmp_path, monkeypatch):
    with _ranks([_sleep, _ends(143)], tmp_path, monkeypatch) as ranks:
        assert _stop(ranks, signals=0) == 143


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("closed by peer"), SystemExit), (SaveError("x"), SaveError)]
)
def test_what_fails_for_want_of_a_stopped_rank_is_no_failure_but_a_failed_save_is(error, raised, tmp_path, monkeypatch):
    late = _Training(tmp_path / "trains", then=_raises(error))

    def stops():
        late.wait()
        os._exit(143)

    with pytest.raises(raised), _ranks([late, stops], tmp_path, monkeypatch) as ranks:
        ranks.wait()


def test_ranks_that_do_not_stop_are_killed_after_the_grace(tmp_path, monkeypatch):
    deaf = [_Training(tmp_path / name, then=_sleep) for name in "ab"]
    started = time.monotonic()
    with _ranks(deaf, tmp_path, monkeypatch, grace=0.5) as ranks:
        for rank in deaf:
            rank.wait()
        assert _stop(ranks) == 143
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all_at_once(number, tmp_path, monkeypatch):
    deaf = [_Training(tmp_path / name, then=_sleep) for name in "ab"]
    started = time.monotonic()
    with _ranks(deaf, tmp_path, monkeypatch, grace=60) as ranks:
        for rank in deaf:
            rank.wait()
        assert _stop(ranks, signals=2, number=number) == 143
    assert time.monotonic() - started < 10


def test_a_report(tmp_path):
    write_report(tmp_path / "r", ConfigError("bad key"))
    error, line, trace = pickle.loads((tmp_path / "r").read_bytes())
    assert isinstance(error, ConfigError)
    assert line == "ConfigError: bad key"
    assert trace.endswith("ConfigError: bad key\n")
