"""The web server under the service: quiet, without a log of who asked for what, and with limits of its own."""

from __future__ import annotations

import uvicorn

from ddl_d2.serve.app import build_app
from ddl_d2.serve.service import Service

_LONGEST_HEAD = 16 * 1024  # bytes of a request before its body


def make_server(service: Service) -> uvicorn.Server:
    """Make the server of a service; `run(sockets=[...])` runs it."""
    config = uvicorn.Config(
        build_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="h11",
        h11_max_incomplete_event_size=_LONGEST_HEAD,
        limit_concurrency=service.limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
