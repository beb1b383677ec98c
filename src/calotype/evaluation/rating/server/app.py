"""The application: which address is which page, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.rating.answering import Refused
from calotype.evaluation.rating.server import admin, rating
from calotype.evaluation.rating.server.context import Context
from calotype.evaluation.rating.server.guard import Guard
from calotype.evaluation.rating.store import Unavailable
from calotype.web.asgi import App

_PACKAGE = "calotype.evaluation.rating.server"
_MOST_FIELDS = 16

Page = Callable[[Context, Request], Response]
Action = Callable[[Context, Request, Mapping[str, str]], Response]


def build_app(context: Context) -> App:
    """The application of a study, behind its guard."""
    get, post = partial(_get, context), partial(_post, context)
    routes = [
        get("/", rating.start),
        get("/r/{token}", rating.enter),
        get("/join/{token}", rating.enter_in_common),
        get("/image/{name}", rating.image),
        get("/leave", rating.ask_to_leave),
        post("/consent", rating.agree),
        post("/answer", rating.answer),
        post("/leave", rating.leave),
        get("/admin", admin.overview),
        get("/admin/enter/{token}", admin.enter),
        get("/admin/answers.jsonl", admin.export_json_lines),
        get("/admin/answers.csv", admin.export_csv),
        post("/admin/{action}", admin.change),
        Mount("/static", StaticFiles(packages=[(_PACKAGE, "static")])),
    ]
    handlers = {CalotypeError: partial(_explain, context), HTTPException: partial(_http, context)}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), context.access.origins)


def _get(context: Context, path: str, page: Page) -> Route:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(page, context, request)

    return Route(path, endpoint, methods=["GET"])


def _post(context: Context, path: str, action: Action) -> Route:
    async def endpoint(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=_MOST_FIELDS)
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        return await run_in_threadpool(action, context, request, texts)

    return Route(path, endpoint, methods=["POST"])


def _explain(context: Context, request: Request, error: Any) -> Response:
    """An error as a page of one line."""
    if isinstance(error, Unavailable):
        text = "Nothing was kept just now. Wait a moment, then reload this page to send it again."
        response = context.message("The study cannot be reached", text, status=503)
        response.headers["retry-after"] = "5"
        return response
    text = str(error).replace(f"{context.folder}/", "")  # raters need not know where it lies
    status = 403 if isinstance(error, Refused) else 400 if isinstance(error, UsageError) else 409
    return context.message("That did not work", text, status=status)


def _http(context: Context, request: Request, error: Any) -> Response:
    title = "There is no such page" if error.status_code == 404 else "That did not work"
    return context.message(title, "Go back to the study.", status=error.status_code)
