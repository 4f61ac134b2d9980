"""What stands before every request: whose host it names, which page sent it, and what an answer lets a page do."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_LONGEST_TARGET, _LARGEST_HEADERS = 4096, 16 * 1024  # bytes
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guards:
    """Refuses what another site's page asks a browser to do, and adds the headers that keep the own page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = _refusal(Headers(scope=scope), scope)
        await (self.app if refusal is None else refusal)(scope, receive, guarded)


def _refusal(headers: Headers, scope: Scope) -> JSONResponse | None:
    host = headers.get("host", "")
    # A name that leads here is no right to be here (DNS rebinding).
    if _host_name(f"//{host}") not in HOSTS:
        return JSONResponse({"error": "this service answers on 127.0.0.1 and localhost only"}, 400)
    if len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > _LONGEST_TARGET:
        return JSONResponse({"error": "the address is too long"}, 414)
    if sum(len(name) + len(value) for name, value in headers.raw) > _LARGEST_HEADERS:
        return JSONResponse({"error": "the headers are too large"}, 431)
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") == "cross-site" or (origin is not None and origin != f"http://{host}"):
        return JSONResponse({"error": "another site's page asked for this"}, 403)
    return None


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
