"""The HTTP service: its addresses, what they take and what they answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from ddl_d2.errors import DdlError, ImageReadError
from ddl_d2.report.html import STYLE
from ddl_d2.serve.api_page import api_page
from ddl_d2.serve.guards import Guards
from ddl_d2.serve.limits import RefusedRequestError
from ddl_d2.serve.service import Service
from ddl_d2.serve.upload import clean_name, read_upload
from ddl_d2.serve.work import Work
from ddl_d2.version import __version__

logger = logging.getLogger(__name__)
_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "style.css": (STYLE, "text/css"),
    "page.css": (_FOLDER / "page.css", "text/css"),
    "page.js": (_FOLDER / "page.js", "text/javascript"),
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The upload took too long."},
    413: {"description": "The file is too large, or has too many pixels."},
    415: {"description": "Neither an image nor a video that is read; or a form instead of the file."},
    422: {"description": "The file is empty, damaged or cut off; or there is no model of this name."},
    503: {"description": "Not ready, busy, or not done in time."},
}
_MODEL = Query(default="", description="the name of a model; the first one if it is left out", max_length=200)
_NAME = Query(default="upload", description="what the file is called in the answer", max_length=1000)

_FRAGILITY = Query(default=False, description="also examine an image as twelve deliveries would leave it")


def build_app(service: Service) -> FastAPI:
    """Make the application of a service; the models are loaded when it starts."""
    work = Work(service.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Not waited for: until it is done the service is there, and not ready.
        loading = asyncio.get_running_loop().run_in_executor(None, service.load)
        yield
        work.close()
        await loading

    app = FastAPI(
        title="ddl_d2",
        version=__version__,
        description="Is this image real or forged, and which pixels were forged? The service keeps nothing.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guards)
    _add_pages(app)
    _add_state(app, service)
    _add_examinations(app, service, work)
    _add_errors(app)
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse((_FOLDER / "index.html").read_text(encoding="utf-8"))

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in _FILES:
            raise RefusedRequestError(404, "there is nothing of this name")
        path, kind = _FILES[name]
        return Response(path.read_bytes(), media_type=kind)

    @app.get("/api", include_in_schema=False)
    def api() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/live", summary="Whether the service runs")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/ready", summary="Whether the models are loaded", responses={503: {"description": "Not yet."}})
    def ready() -> JSONResponse:
        if service.examiners:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "loading"}, 503)

    @app.get("/api/models", summary="The models that there are")
    def models() -> dict[str, Any]:
        return {"models": service.models()}


def _add_examinations(app: FastAPI, service: Service, work: Work) -> None:
    @app.post("/api/predict", summary="Examine an image or a clip", responses=_ERRORS, openapi_extra=_BODY)
    async def predict(
        request: Request, model: str = _MODEL, name: str = _NAME, fragility: bool = _FRAGILITY
    ) -> JSONResponse:
        content = await read_upload(request, service.limits)
        return JSONResponse(await work.run(service.predict, content, clean_name(name), model, fragility))

    @app.post(
        "/api/record",
        summary="Examine an image or a clip, and get the record as a ZIP file",
        responses=_ERRORS | {200: {"content": {"application/zip": {}}}},
        response_class=Response,
        openapi_extra=_BODY,
    )
    async def record(
        request: Request, model: str = _MODEL, name: str = _NAME, fragility: bool = _FRAGILITY
    ) -> Response:
        content = await read_upload(request, service.limits)
        packed = await work.run(service.record, content, clean_name(name), model, fragility)
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", clean_name(name).rpartition(".")[0])[:60] or "upload"
        headers = {"Content-Disposition": f'attachment; filename="record-{stem}.zip"'}
        return Response(packed, media_type="application/zip", headers=headers)


def _add_errors(app: FastAPI) -> None:
    """Every error is a sentence in JSON; none shows how the program looks inside."""

    @app.exception_handler(RefusedRequestError)
    def refused(_: Request, error: RefusedRequestError) -> JSONResponse:
        # What is left of the upload is not read: the connection ends.
        headers = {"Connection": "close"} if error.status in (408, 413) else {}
        headers |= {"Retry-After": "5"} if error.status == 503 else {}
        return JSONResponse({"error": error.reason}, error.status, headers=headers)

    @app.exception_handler(ImageReadError)
    def unreadable(_: Request, error: ImageReadError) -> JSONResponse:
        return JSONResponse({"error": f"the file {error.reason}"}, 422)

    @app.exception_handler(DdlError)
    def impossible(_: Request, error: DdlError) -> JSONResponse:
        logger.error("%s", error)
        return JSONResponse({"error": "the model cannot examine this file"}, 422)

    @app.exception_handler(RequestValidationError)
    def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": f"a parameter is wrong: {error.errors()[0]['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    def fault(_: Request, error: Exception) -> JSONResponse:
        logger.error("an answer failed", exc_info=error)
        return JSONResponse({"error": "a fault of the program; its log says more"}, 500)
