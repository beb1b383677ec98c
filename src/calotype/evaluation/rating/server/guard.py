"""What every request passes first: host, origin, size; and the headers of every answer."""

from __future__ import annotations

from collections.abc import Collection

from calotype.web.addresses import hosts_of
from calotype.web.asgi import (
    SAFE_HEADERS,
    App,
    Receive,
    Scope,
    Send,
    answer,
    header,
    replayed,
    with_headers,
)

MAX_BODY = 16_384  # bytes; an answer has a few hundred
HEADERS = {
    **SAFE_HEADERS,
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


class Guard:
    """Lets through what comes to this server by its own name, from its own pages, and small.

    Args:
        app: behind it.
        origins: of this server, such as http://127.0.0.1:8000.
    """

    def __init__(self, app: App, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = hosts_of(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = with_headers(send, HEADERS)
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                refusal = 413, f"got a request of more than {MAX_BODY:,} bytes"
            else:
                receive = replayed(body, receive)
        if refusal is not None:
            status, text = refusal
            plain = {"content-type": "text/plain; charset=utf-8"}
            await answer(send, status, f"{text}\n".encode(), plain)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        method = scope["method"]
        if (header(scope, "host") or "").lower() not in self._hosts:
            return 421, "got another host's name; open the address that calotype rate serve prints"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        if method == "POST" and (header(scope, "origin") or "").lower() not in self._origins:
            return 403, "got a form of another site; answer on the study's own page"
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None = too large, or the client has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body
