"""The application: a route for each model, and what supervisors ask."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from multidiff import __version__
from multidiff.serve.guard import Guard
from multidiff.serve.jobs import DONE, FAILED, Busy, Event, Job
from multidiff.serve.reference import reference_page
from multidiff.serve.schemas import Body, one_line
from multidiff.serve.service import Served, Service
from multidiff.serve.settings import ServerSettings
from multidiff.serve.wav import WAV, wav_header
from multidiff.utils.errors import InputError

EVENTS = "text/event-stream"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def create_app(models: Mapping[str, Any], settings: ServerSettings | None = None) -> FastAPI:
    """Return the application of some models.

    ``app.state.service`` is the :class:`~multidiff.serve.service.Service` behind its routes; code
    that is mounted beside them, such as a page, sends its requests there, to the same queues.

    Args:
        models: loaded models by name.
        settings: limits.

    Raises:
        InputError: if a model generates nothing to serve, or its name does not suit a path.
    """
    settings = settings or ServerSettings()
    for name in models:
        if not NAME.fullmatch(name):
            raise InputError(f"{name}: names in paths have letters, digits, '.', '_' and '-'")
    service = Service(models, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="multidiff", version=__version__, lifespan=lifespan, docs_url=None,
                  redoc_url=None, redirect_slashes=False)  # fmt: skip
    app.state.service = service
    _add_supervision(app, service)
    families: set[str] = set()
    for served in service.models.values():
        route = served.family.route
        paths = [f"/v1/{route}/{served.name}"]
        paths = paths if route in families else [f"/v1/{route}", *paths]
        families.add(route)
        for path in paths:
            _add_route(app, path, served)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RecursionError, _too_deep)
    app.add_middleware(Guard, settings=settings)
    return app


def _add_supervision(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["supervision"])
    async def health() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok", "version": __version__}

    @app.get("/ready", tags=["supervision"])
    async def ready() -> JSONResponse:
        """Say whether requests are accepted: 200, or 503 while it stops."""
        status = 200 if service.accepting else 503
        return JSONResponse({"models": [*service.models], "ready": service.accepting}, status)

    @app.get("/metrics", tags=["supervision"])
    async def metrics() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    @app.get("/v1/models", tags=["supervision"])
    async def models() -> dict[str, Any]:
        """List the models and their routes."""
        return {
            name: {"route": f"/v1/{one.family.route}/{name}", "about": one.family.about}
            for name, one in service.models.items()
        }


def _add_route(app: FastAPI, path: str, served: Served) -> None:
    """Add the route of a model; its requests are of the model's own class."""
    is_sound = served.family.media_type == WAV

    async def answer(request: Request, body: Body, chunked: bool = False) -> Response:
        as_events = EVENTS in request.headers.get("accept", "")
        try:
            job = served.submit(body, detailed=as_events or chunked)
        except Busy as busy:
            headers = {"Retry-After": str(busy.seconds)}
            return JSONResponse({"detail": str(busy)}, 503, headers)
        if as_events:
            return StreamingResponse(_event_lines(request, job), media_type=EVENTS)
        if chunked:
            return await _chunked(request, job)
        return _response(await _last_of(request, job))

    annotations = {"request": Request, "body": served.body, "return": Response}
    answer.__annotations__ = {**annotations, "chunked": bool} if is_sound else annotations
    if not is_sound:
        answer = _without_chunks(answer)
    kinds = {EVENTS: {"schema": {"type": "string"}}, served.family.media_type: {}}
    app.add_api_route(
        path,
        answer,
        methods=["POST"],
        tags=[served.family.route],
        summary=f"{served.family.about} ({served.name})",
        response_class=Response,
        responses={200: {"content": kinds, "description": "a file, or events as they happen"}},
        operation_id=path.strip("/").replace("/", "_"),
    )


def _without_chunks(answer: Any) -> Any:
    async def plain(request: Request, body: Body) -> Response:
        return await answer(request, body)

    plain.__annotations__ = answer.__annotations__
    return plain


async def _events(request: Request, job: Job) -> AsyncIterator[Event]:
    """Yield the events of a job; it is cancelled when the client is gone."""
    loop, news = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

    def put(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, and its client with it
            loop.call_soon_threadsafe(news.put_nowait, event)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        job.cancel()
        news.put_nowait(None)

    watching = asyncio.create_task(watch())
    job.listen(put)
    try:
        while (event := await news.get()) is not None:
            yield event
            if event.name in (DONE, FAILED):
                return
    finally:
        watching.cancel()
        job.cancel()


async def _last_of(request: Request, job: Job) -> Event:
    last = Event(FAILED, {"status": 499, "detail": "the client is gone"})
    async for event in _events(request, job):
        last = event
    return last


def _response(event: Event, status: int = 200) -> Response:
    if event.name == FAILED:
        return JSONResponse({"detail": event.data["detail"]}, event.data["status"])
    if event.content is None:
        return JSONResponse(event.data)
    headers = {f"X-{name.title()}": str(value) for name, value in event.data.items()}
    return Response(event.content, status, headers, event.media_type)


async def _event_lines(request: Request, job: Job) -> AsyncIterator[str]:
    """Yield events as server-sent ones; bytes of files are in base64 under ``content``."""
    async for event in _events(request, job):
        data = dict(event.data)
        if event.content is not None:
            data["media_type"] = event.media_type
            data["content"] = base64.b64encode(event.content).decode()
        yield f"event: {event.name}\ndata: {json.dumps(data)}\n\n"


async def _chunked(request: Request, job: Job) -> Response:
    """Return a sound whose chunks are sent as they are made; an error before the first is one."""
    events = _events(request, job)
    async for event in events:
        if event.name in (DONE, FAILED):
            return _response(event)
        if event.name == "audio":
            return StreamingResponse(_samples(event, events), media_type=WAV)
    return _response(Event(FAILED, {"status": 499, "detail": "the client is gone"}))


async def _samples(first: Event, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    yield wav_header(first.data["sample_rate_hz"]) + (first.content or b"")
    async for event in events:
        if event.name == FAILED:  # the connection breaks, so that nobody takes it for the end
            raise RuntimeError(event.data["detail"])
        if event.name == "audio":
            yield event.content or b""


async def _invalid(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": one_line(error)}, 422)


async def _http_error(request: Request, error: Any) -> JSONResponse:
    detail = str(error.detail)
    if error.status_code == 404:
        detail = "no such path; GET /v1/models lists those of the models"
    return JSONResponse({"detail": detail}, error.status_code, getattr(error, "headers", None))


async def _too_deep(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": "the body: is nested too deeply"}, 422)
