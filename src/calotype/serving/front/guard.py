"""What every request passes first, and the headers of every answer; plain ASGI.

Only `/healthz` and `/readyz` are let through unseen. A request of another host's name, of another
site's page, without a key where keys exist, or with a body that is made to hurt, never comes to a
route: so no route has to remember it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.access import Access
from calotype.serving.front.authentication import Authentication
from calotype.serving.front.bodies import Bodies, Gone, check_body, check_type, is_form
from calotype.serving.front.context import KEY_NAME
from calotype.serving.front.errors import ApiError, not_found
from calotype.serving.front.limits import FORM_PIECE, MOST_HEADER_BYTES, MOST_HEADERS
from calotype.serving.front.login import PATHS, Login
from calotype.web.asgi import (
    SAFE_HEADERS,
    App,
    Receive,
    Scope,
    Send,
    header,
    replayed,
    with_headers,
)

OPEN = ("/healthz", "/readyz")
"""The routes that need no key and look at no header."""
HEADERS = {
    **SAFE_HEADERS,
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "private, no-cache",
}
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
_EXPOSED = "x-request-id, x-seeds, x-ignored-params, x-should-retry, retry-after, location"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{0,4096}")

Render = Callable[[Request, ApiError], Response]


class Guard:
    """Stands before the application.

    Args:
        app: behind it.
        access: the names of the server, and the sites that may use it.
        authentication: tells whose a request is.
        render: an error in the shape of the API that was asked.
        is_linked: whether a path is one that was given away, to be opened without a key.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        authentication: Authentication,
        render: Render,
        is_linked: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._app = app
        self._access = access
        self._authentication = authentication
        self._render = render
        self._is_linked = is_linked
        self._bodies = Bodies()
        self._login = Login(access, authentication, self._bodies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = {**HEADERS, **self._cors(scope)}
            await self._http(scope, receive, with_headers(send, headers))
        else:  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        size = 0
        try:
            self._check_address(scope)
            own = await self._own_answer(scope, receive)
            if own is None:
                await self._check_key(scope)
                receive, size = await self._read(scope, receive)
        except Gone:
            return
        except ApiError as error:
            own = self._refusal(scope, error)
        if own is None:
            with self._bodies.held(size):  # routes keep what they read until they have answered
                await self._app(scope, receive, send)
        else:
            await own(scope, receive, send)

    def _check_address(self, scope: Scope) -> None:
        """Refuse what does not mean this server, or comes from another site's page."""
        headers = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
            text = f"got more than {MOST_HEADERS} headers, or {MOST_HEADER_BYTES:,} bytes of them"
            raise ApiError(431, text, code="too_many_headers")
        path = scope["path"]
        if "\0" in path or "\\" in path or {".", ".."} & set(path.split("/")):
            raise not_found("address")
        if (header(scope, "host") or "").lower() not in self._access.hosts:
            text = "got another host's name; whoever runs this server adds it with --allowed-host"
            raise ApiError(421, text, code="wrong_host")
        origin = header(scope, "origin")
        if origin is not None and origin.lower() not in (*self._access.origins, *self._access.cors):
            text = "got a request of another site's page; --cors-origin lets one in"
            raise ApiError(403, text, code="wrong_origin")
        if scope["method"] not in _METHODS and not self._is_preflight(scope):
            raise ApiError(405, "got a method that this address has not", code="invalid_request")
        if "," in (header(scope, "range") or ""):
            raise ApiError(416, "got several ranges; expected one", code="invalid_request")

    async def _own_answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to what no route is asked: preflights, and the way in."""
        if self._is_preflight(scope):
            asked = header(scope, "access-control-request-headers") or ""
            headers = {
                "access-control-allow-methods": ", ".join(_METHODS),
                "access-control-allow-headers": asked if _HEADER_NAMES.fullmatch(asked) else "",
                "access-control-max-age": "600",
            }
            return Response(status_code=204, headers=headers)
        if scope["path"] in PATHS:
            return await self._login.answer(scope, receive)
        return None

    async def _check_key(self, scope: Scope) -> None:
        if self._authentication.needed and not self._is_linked(scope["path"]):
            scope[KEY_NAME] = await self._authentication.identify(scope)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Receive, int]:
        """A `receive` for the body, and its size."""
        has_body = header(scope, "content-length") not in (None, "0")
        if not has_body and header(scope, "transfer-encoding") is None:
            return receive, 0
        check_type(scope)
        body = await self._bodies.read(scope, receive)
        check_body(scope, body)
        # Parsing a form of 40 MB takes long; JSON is one piece, for its parser takes no less.
        piece = FORM_PIECE if is_form(scope) else None
        return replayed(body, receive, piece=piece), len(body)

    def _refusal(self, scope: Scope, error: ApiError) -> Response:
        wants_page = "text/html" in (header(scope, "accept") or "")
        if error.status == 401 and scope["method"] == "GET" and wants_page:
            response = self._login.page(status=401)
        else:
            response = self._render(Request(scope), error)
        if error.status == 401:
            response.headers["www-authenticate"] = 'Bearer realm="calotype"'
        if error.status == 408:
            response.headers["connection"] = "close"
        return response

    def _is_preflight(self, scope: Scope) -> bool:
        asked = header(scope, "access-control-request-method")
        return scope["method"] == "OPTIONS" and asked is not None and bool(self._cors(scope))

    def _cors(self, scope: Scope) -> dict[str, str]:
        origin = header(scope, "origin") or ""
        if origin.lower() not in self._access.cors:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED,
            "vary": "origin",
        }
