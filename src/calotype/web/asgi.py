"""ASGI: its types, the headers of requests and answers, and answers without a framework.

Reference: OWASP cheat sheets on DNS rebinding, CSRF (verifying the origin) and HTTP headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # with no-referrer, browsers would send the origin "null"
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer, beside a content security policy."""


def header(scope: Scope, name: str) -> str | None:
    """A request's header, None where it has none; several are joined, and so equal no single one.

    Args:
        scope: of the request.
        name: in lower case.
    """
    wanted = name.encode()
    found = [value for key, value in scope["headers"] if key.lower() == wanted]
    return b", ".join(found).decode("latin-1").strip() if found else None


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """A `send` whose answers have `headers`, but for those that they bring themselves."""
    own = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            theirs = list(message.get("headers", []))
            names = {name.lower() for name, _ in theirs}
            added = [pair for pair in own if pair[0] not in names]
            message = {**message, "headers": [*theirs, *added]}
        await send(message)

    return wrapped


async def answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Answer a request with all of a body; `headers` say its type."""
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def replayed(body: bytes, receive: Receive, *, piece: int | None = None) -> Receive:
    """A `receive` for what has been read: the body, then what else comes.

    Args:
        body: all of it.
        receive: for afterwards.
        piece: bytes at once, with others' turns between; None = all, which is not copied.
    """
    waiting = [body]  # taken out when given, so that nothing holds on to it
    given = [0]

    async def again() -> Message:
        if not waiting:
            return await receive()
        end = len(waiting[0]) if piece is None else given[0] + piece
        part = waiting[0][given[0] : end]  # the whole is no copy
        given[0] = end
        if end >= len(waiting[0]):
            waiting.clear()
        else:
            await asyncio.sleep(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    return again
