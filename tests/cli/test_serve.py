"""`ddl-d2 serve` as a process: it says where it is, answers, and ends."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.conftest import ROOT
from tests.report.conftest import tiny_weights  # noqa: F401  a fixture

pytest.importorskip("fastapi", reason="needs the extra serve")


@pytest.fixture
def begin():
    """Start the command; what runs at the end is ended."""
    started = []

    def call(*words):
        command = [sys.executable, "-m", "ddl_d2.cli.main", "serve", "--port", "0", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def status_of(address):
    try:
        return urllib.request.urlopen(address, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_serves_on_this_machine_only_until_it_is_stopped(begin, tiny_weights):  # noqa: F811
    process = begin("--weights", tiny_weights / "0.safetensors", "--weights", tiny_weights / "0.safetensors")
    address = process.stdout.readline().split()[0]
    assert address.startswith("http://127.0.0.1:")
    statuses = [status_of(f"{address}ready")]
    while statuses[-1] != 200:
        time.sleep(0.1)
        statuses.append(status_of(f"{address}ready"))
    assert set(statuses) <= {503, 200}
    models = urllib.request.urlopen(f"{address}api/models", timeout=5).read().decode()
    assert '"tiny_0"' in models
    assert '"tiny_0-2"' in models  # two of one name
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Traceback" not in process.stderr.read()


def test_weights_that_are_missing_end_it_with_a_sentence(begin, tmp_path):
    process = begin("--weights", tmp_path / "absent.safetensors")
    assert process.wait(120) == 2
    said = process.stderr.read()
    assert "absent.safetensors" in said
    assert "Traceback" not in said
