"""Every request: an id that its answer bears, a line of the log, and its numbers."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.context import KEY_NAME, REQUEST_ID
from calotype.serving.front.observer import Observer
from calotype.web.asgi import App, Message, Receive, Scope, Send, header, with_headers

_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_QUIET = ("/healthz", "/readyz", "/metrics", "/api/v1/status")  # asked all the time
_GIVEN_UP = 499  # as nginx calls it: the client went before the answer


class Observing:
    """The outermost layer of the application.

    Args:
        app: behind it.
        observer: told of every answer.
    """

    def __init__(self, app: App, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or REQUEST_ID in scope:  # there is one before the guard
            await self._app(scope, receive, send)
            return
        asked = header(scope, "x-request-id") or ""
        number = asked if _ID.fullmatch(asked) else secrets.token_urlsafe(12)
        scope[REQUEST_ID] = number
        status = [_GIVEN_UP]

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        naming = with_headers(noting, {"x-request-id": number})
        if scope["path"] in _QUIET:
            await self._app(scope, receive, naming)
            return
        theirs = {"traceparent": header(scope, "traceparent") or ""}
        began = time.monotonic()
        with (
            structlog.contextvars.bound_contextvars(request_id=number),
            self._observer.tracing.request(scope["method"], theirs) as span,
        ):
            try:
                await self._app(scope, receive, naming)
            except Exception:
                status[0] = 500  # what the framework is about to answer
                raise
            finally:
                self._tell(scope, status[0], time.monotonic() - began, span)

    def _tell(self, scope: Scope, status: int, seconds: float, span: Any) -> None:
        route = getattr(scope.get("route"), "path", "other")  # paths themselves hold ids
        method = scope["method"]
        self._observer.tracing.answered(span, method, route, status)
        with structlog.contextvars.bound_contextvars(key=scope.get(KEY_NAME)):
            self._observer.request(method, route, status, seconds)


async def metrics(request: Request) -> Response:
    """What Prometheus asks for."""
    data = generate_latest(request.app.state.hub.observer.registry)
    return Response(data, media_type=CONTENT_TYPE_LATEST)
