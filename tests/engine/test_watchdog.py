"""Each case in a forked child, since what is tested ends the process."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest

from ddl_d2.engine.watchdog import HUNG, STOPPED, Watch

_PR_SET_CHILD_SUBREAPER = 36
STEP_ENDS = "ends after this step, which is saved; once more ends it at once\n"


def _child(work, said):
    """(exit code, stderr) of `work` in a child, which exits with what `work` returns."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        os._exit(work())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, said.read_text()


@pytest.fixture
def run(tmp_path):
    return lambda work: _child(work, tmp_path / "said")


def _signal(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def _wait(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


EITHER = pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])


@EITHER
def test_a_signal_asks_for_a_stop_and_the_step_goes_on(run, number, name):
    def work():
        asked = []
        with Watch(lambda: asked.append(True), grace=60, name="rank 0"):
            _signal(number)
            return 5 if _wait(lambda: asked) and len(asked) == 1 else 1

    assert run(work) == (5, f"rank 0: {name}: {STEP_ENDS}")


def test_an_ignored_interrupt_stays_ignored(run):
    """As in a shell's background, and in ranks."""

    def work():
        asked = []
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Watch(lambda: asked.append(True), grace=60):
            _signal(signal.SIGINT)
            return 1 if _wait(lambda: asked, 1.0) else 5

    assert run(work) == (5, "")


def test_the_handler_is_put_back():
    def now():
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)

    before = now()
    with Watch(lambda: None, grace=60):
        assert not {signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)} & set(before[:2])
    assert now() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "watch"]


@EITHER
def test_a_second_signal_ends_it_at_once(run, number, name):
    def work():
        asked = []
        with Watch(lambda: asked.append(True), grace=60, name="rank 3"):
            _signal(number)
            _wait(lambda: asked)
            _signal(number)
            time.sleep(30)

    code, said = run(work)
    assert code == STOPPED == 143
    assert said == f"rank 3: {name}: {STEP_ENDS}rank 3: second {name}: ends without saving\n"


def test_where_signals_are_repeated_they_are_not_counted(run):
    def work():
        asked = []
        with Watch(lambda: asked.append(True), grace=60, count_signals=False):
            for _ in range(5):
                _signal()
                time.sleep(0.05)
            return 5 if _wait(lambda: asked) and len(asked) == 1 else 1

    assert run(work)[0] == 5


def test_the_grace_ends_it_though_the_main_thread_hears_nothing(run):
    def work():
        with Watch(lambda: None, grace=0.3, name="rank 0"):
            # A main thread that waits without ever coming back to Python does not run handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            _signal_from_a_thread()
            time.sleep(30)

    code, said = run(work)
    assert code == STOPPED
    assert "most recent call first" in said
    assert said.endswith("rank 0: no end of the step within 0.3 s of SIGTERM: ends without saving\n")


def _signal_from_a_thread():
    def send():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _signal()

    threading.Thread(target=send).start()


def _a_place_to_hang():
    time.sleep(30)


def test_a_step_that_hangs_ends_it_and_says_where(run):
    def work():
        with Watch(lambda: None, grace=60, hang_timeout=0.3, name="rank 1") as guard:
            for _ in range(3):
                with guard.step("iteration 7"):
                    time.sleep(0.15)
            time.sleep(1.0)  # not within a step
            with guard.step("iteration 8"):
                _a_place_to_hang()

    code, said = run(work)
    assert code == HUNG
    last = said.splitlines()[-1]
    assert last.startswith("rank 1: iteration 8 hangs for ")
    assert "in _a_place_to_hang (" in last
    assert "test_watchdog.py:" in last


def _parent_of_one_that_watches(child_id):
    """Starts a process that multiprocessing knows as its child, notes its id, and stays."""

    def work():
        with Watch(lambda: None, grace=60, name="rank 0"):
            child_id.write_text(str(os.getpid()))
            time.sleep(30)

    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(30)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_the_death_of_the_parent_is_noticed(run, tmp_path):
    child_id = tmp_path / "child"

    def work():
        # Of the grandchild, so that it can be waited for.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        parent = os.fork()
        if parent == 0:
            _parent_of_one_that_watches(child_id)
        _wait(lambda: child_id.exists() and child_id.read_text())
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        return os.waitstatus_to_exitcode(os.waitpid(int(child_id.read_text()), 0)[1])

    code, said = run(work)
    assert (code, said) == (1, "rank 0: the process that started it is gone\n")


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Watch(lambda: None, grace=60):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
