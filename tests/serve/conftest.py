"""A running service with a small model of chance, and requests to it as bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from ddl_d2.inference.model import load_model
from ddl_d2.report.examination import Examiner
from ddl_d2.serve.limits import Limits
from ddl_d2.serve.server import make_server
from ddl_d2.serve.service import Service
from tests.report.conftest import photo, tiny_weights  # noqa: F401  fixtures


@contextmanager
def running(service: Service) -> Iterator[int]:
    """Serve on a free port of this machine while the block runs; gives the port."""
    server = make_server(service)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not (service.examiners or service.error):
                time.sleep(0.05)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def service(tiny_weights: Path) -> Service:  # noqa: F811  the fixture of that name
    def load():
        weights = {f"tiny_{seed}": str(tiny_weights / f"{seed}.safetensors") for seed in (0, 1)}
        return {name: Examiner(load_model(path, device="cpu"), frames=2) for name, path in weights.items()}

    return Service(load, Limits(max_bytes=2**20, max_pixels=10**6, upload_seconds=1.0, seconds=60, waiting=1))


@pytest.fixture(scope="session")
def port(service: Service) -> Iterator[int]:
    with running(service) as number:
        yield number


@pytest.fixture
def ask(port: int):
    """`ask(bytes of a request)` -> (status, headers and body as text); (0, "") if there was no answer."""

    def call(request: bytes, *, wait: float = 20.0, half_close: bool = False) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
            try:
                connection.sendall(request)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the service may have answered and closed before the end of the request
            parts = []
            try:
                while part := connection.recv(65536):
                    parts.append(part)
            except ConnectionResetError:
                pass
        answer = b"".join(parts).decode("utf-8", "replace")
        return (int(answer.split(" ", 2)[1]) if answer else 0), answer

    return call


def post(port: int, content: bytes, path: str = "/api/predict", **headers: str) -> bytes:
    """A request that sends a file, with changed or further headers."""
    stated = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(content)), "Connection": "close"}
    stated |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in stated.items() if value), "", ""]
    return "\r\n".join(lines).encode("latin-1") + content
