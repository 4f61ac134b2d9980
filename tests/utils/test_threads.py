import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from ddl_d2.utils.threads import SPINS, in_order, share_cores


@pytest.mark.parametrize("workers", [1, 3])
def test_in_order(workers):
    assert list(in_order(lambda item: item * item, range(500), workers)) == [item * item for item in range(500)]


def test_an_error_stops_the_threads():
    """Of a million items, some of the first chunk are done and nothing of the next."""
    done, lock = [], threading.Lock()

    def one(item: int) -> None:
        if item == 5:
            raise ValueError("stop")
        with lock:
            done.append(item)

    with pytest.raises(ValueError, match="stop"):
        list(in_order(one, range(1_000_000), 2))
    assert max(done) < 128
    assert np.isin(range(5), done).all()


@pytest.fixture
def environment(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    return monkeypatch


@pytest.mark.parametrize(("load", "may_be_one", "threads"), [(3.9, True, None), (4.0, True, "1"), (9.0, False, None)])
def test_threads_spin_briefly_and_one_is_enough_on_busy_cores(environment, load, may_be_one, threads):
    environment.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    share_cores(may_be_one=may_be_one)
    assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)
    assert os.environ.get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(environment, name):
    environment.setattr("os.getloadavg", lambda: (9.0, 0.0, 0.0))
    environment.setenv(name, "mine")
    environment.setenv("OMP_NUM_THREADS", "3")
    share_cores(may_be_one=True)
    assert os.environ[name] == "mine"
    assert ("GOMP_SPINCOUNT" in os.environ) == (name == "GOMP_SPINCOUNT")
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_command_settles_it_before_torch():
    code = "import os, sys, ddl_d2.cli.common; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(SPINS), "False"]
