"""The application: which API is mounted where, what starts and ends with it, and errors' shapes.

An API is a `router` that is listed in `build_app`. Its routes get the hub by `hub_of` and whom
they answer by `owner_of`; an API with errors of its own shape has an entry in `SHAPES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from calotype.serving.front.context import hub_of, request_id_of
from calotype.serving.front.errors import ApiError, invalid
from calotype.serving.front.links import Links
from calotype.serving.front.links import router as links
from calotype.serving.front.observer import Observer
from calotype.serving.front.observing import Observing, metrics
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.start import open_store, running_hub
from calotype.serving.front.store import Store
from calotype.serving.native.routes import router as native
from calotype.serving.native.small import Thumbnails
from calotype.serving.openai.routes import router as openai
from calotype.serving.page import mount as mount_page
from calotype.serving.sdapi import control, extras, lists, routes
from calotype.serving.sdapi.desk import Desk
from calotype.serving.sdapi.shapes import shape as sdapi_shape

SHAPES: dict[str, Callable[[ApiError], dict[str, Any]]] = {"/sdapi/": sdapi_shape}
"""By the beginning of a path: the JSON of an error, where it is not OpenAI's."""

SDAPI = tuple(one.router for one in (routes, extras, control, lists))

health = APIRouter()
health.add_api_route("/metrics", metrics, methods=["GET"])


@health.get("/healthz")
async def healthz() -> Response:
    """Whether the front answers."""
    return PlainTextResponse("ok\n")


@health.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether an engine can take work."""
    hub = hub_of(request)
    is_ready = not hub.is_draining and any(one.state == "ready" for one in hub.work.engines)
    return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)


def build_app(
    settings: ServeSettings, store: Store | None = None, observer: Observer | None = None
) -> FastAPI:
    """The application of a server, whose engine starts with its lifespan.

    Args:
        settings: of the server; its port is the one listened at.
        store: where images are kept; None = opened by the settings, when the lifespan begins.
        observer: told what happens; None = one without a log.
    """
    watching = Observer() if observer is None else observer

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_hub(settings, store or open_store(settings), watching) as hub:
            app.state.hub = hub
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    app.state.links = Links()
    app.state.thumbnails = Thumbnails()
    app.state.desk = Desk()
    for router in (health, links, openai, native, *SDAPI):
        app.include_router(router)
    mount_page(app)
    add_error_shapes(app)
    app.add_middleware(Observing, observer=watching)  # the last added is the outermost
    return app


def add_error_shapes(app: FastAPI) -> None:
    """Let every error, the framework's own too, be answered in the shape of the API asked."""
    for kind, handler in (
        (ApiError, _api_error),
        (HTTPException, _http_error),
        (RequestValidationError, _validation_error),
        (Exception, _defect),
    ):
        app.add_exception_handler(kind, handler)


def answer(request: Request, error: ApiError) -> Response:
    """An error in the shape of the API that was asked."""
    path = request.url.path
    shape = next((SHAPES[start] for start in SHAPES if path.startswith(start)), ApiError.body)
    return JSONResponse(shape(error), error.status, error.headers())


async def _api_error(request: Request, error: Any) -> Response:
    return answer(request, error)


async def _http_error(request: Request, error: Any) -> Response:
    texts = {404: "there is no such address", 405: "got a method that this address has not"}
    text = texts.get(error.status_code, str(error.detail))
    code = "not_found" if error.status_code == 404 else "invalid_request"
    response = answer(request, ApiError(error.status_code, text, code=code))
    response.headers.update(error.headers or {})
    return response


async def _validation_error(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return answer(request, invalid(first["loc"], first["msg"]))


async def _defect(request: Request, error: Any) -> Response:
    response = answer(
        request, ApiError(500, "the server failed; its log says why", code="internal")
    )
    response.headers["x-request-id"] = request_id_of(request)  # it is made outside of all layers
    return response
