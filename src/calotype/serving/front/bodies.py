"""Reading the body of a request, whole or not at all, and looking at it before anything parses it.

Every test here runs at the speed of C: 48 MB must not hold up the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from python_multipart.multipart import parse_options_header

from calotype.serving.front.errors import ApiError
from calotype.serving.front.limits import (
    BODY_SECONDS,
    MOST_BACKSLASHES,
    MOST_BODIES,
    MOST_BODY,
    MOST_DEPTH,
    MOST_ESCAPED,
    MOST_FIELDS,
    MOST_FILES,
    MOST_VALUES,
)
from calotype.web.asgi import Receive, Scope, header

_FORM = "multipart/form-data"
_RAW = ("image/png", "image/jpeg", "image/webp")
_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_EVERYTHING_BUT_MARKS = bytes(set(range(256)) - set(b"[]{}"))


class Gone(Exception):
    """The client has gone before it had said all."""


class Bodies:
    """Reads bodies, and knows how much of them there is at the same time."""

    def __init__(self) -> None:
        self._held = 0

    async def read(self, scope: Scope, receive: Receive, *, most: int = MOST_BODY) -> bytes:
        """The whole body; empty where there is none.

        Raises:
            ApiError: it is too large, too slow, or there are too many at once.
            Gone: the client has gone.
        """
        length = header(scope, "content-length") or "0"
        if not length.isdecimal() or len(length) > 12 or int(length) > most:
            raise _too_large(most)
        chunks: list[bytes] = []
        with self._counted(chunks):
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    await self._fill(chunks, receive, most)
            except TimeoutError:
                text = f"got no whole body within {BODY_SECONDS:g} seconds; send it faster"
                raise ApiError(408, text, code="body_too_slow") from None
            return b"".join(chunks)

    async def _fill(self, chunks: list[bytes], receive: Receive, most: int) -> None:
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Gone
            chunk = bytes(message.get("body", b""))
            chunks.append(chunk)
            size += len(chunk)
            self._held += len(chunk)
            if size > most:
                raise _too_large(most)
            if self._held > MOST_BODIES:
                text = "there are too many large requests at once; try again in a moment"
                raise ApiError(503, text, code="busy", retry_after=5)
            more = message.get("more_body", False)

    @contextmanager
    def _counted(self, chunks: list[bytes]) -> Iterator[None]:
        try:
            yield
        finally:
            self._held -= sum(map(len, chunks))

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count so many bytes that have been read, as long as the block answers their request."""
        self._held += size
        try:
            yield
        finally:
            self._held -= size


def check_type(scope: Scope) -> None:
    """Refuse a body that is neither JSON nor a form nor an image, before it is read.

    Raises:
        ApiError: 415.
    """
    kind = _kind(scope)
    if not (_is_json(kind) or kind == _FORM or kind in _RAW):
        text = f"got a body of type {kind[:80]!r}; expected application/json or {_FORM}"
        raise ApiError(415, text, code="unsupported_media_type")


def check_body(scope: Scope, body: bytes) -> None:
    """Refuse a body that is made to hurt its parser.

    Raises:
        ApiError: 400.
    """
    kind = _kind(scope)
    if _is_json(kind):
        check_json(body)
    elif kind == _FORM:
        _check_form(scope, body)


def check_json(body: bytes) -> None:
    """Refuse JSON that is nested too deep or has too many values, before it is parsed.

    JSON that is not well formed may pass: its parser gets no further than what was looked at.

    Raises:
        ApiError: 400.
    """
    if b"\0" in body:  # UTF-16, which parsers would guess
        raise ApiError(400, "got JSON that is not UTF-8", code="invalid_json")
    outside = _outside_strings(body)
    marks = outside.translate(_AS_BRACKETS, _EVERYTHING_BUT_MARKS)
    if outside.count(b",") + len(marks) > MOST_VALUES:
        raise _too_many()
    for _ in range(MOST_DEPTH):  # each round takes the innermost pairs: one level
        marks = marks.replace(b"[]", b"")
    if marks:
        text = f"got JSON that does not end, or is nested more than {MOST_DEPTH} deep"
        raise ApiError(400, text, code="invalid_json")


def _outside_strings(body: bytes) -> bytes:
    """JSON without its strings, which are found, not copied: they may be images.

    Raises:
        ApiError: 400.
    """
    pieces: list[bytes] = []
    size = at = 0
    while at < len(body):
        start = body.find(b'"', at)
        until = len(body) if start < 0 else start
        size += until - at
        if size > 16 * MOST_VALUES or len(pieces) > 2 * MOST_VALUES:
            raise _too_many()
        pieces.append(body[at:until])
        at = len(body) if start < 0 else _end_of_string(body, start) + 1
    return b" ".join(pieces)


def _end_of_string(body: bytes, start: int) -> int:
    """Where the quote is that ends a string; the end of all where there is none."""
    end = start
    for _ in range(MOST_ESCAPED):
        end = body.find(b'"', end + 1)
        if end < 0:
            return len(body)
        before = body[max(start + 1, end - MOST_BACKSLASHES) : end]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes == MOST_BACKSLASHES:
            text = f"got a string with {MOST_BACKSLASHES} backslashes in a row"
            raise ApiError(400, text, code="invalid_json")
        if backslashes % 2 == 0:  # each escapes the next; an odd one the quote
            return end
    raise _too_many()


def _too_many() -> ApiError:
    text = f"got JSON with more than {MOST_VALUES:,} values, or as long without its strings"
    return ApiError(400, text, code="invalid_json")


def _check_form(scope: Scope, body: bytes) -> None:
    """A form of few parts, whoever parses it: a boundary stands before each and at the end."""
    _, options = parse_options_header(header(scope, "content-type") or "")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise ApiError(400, "got multipart/form-data without a boundary", code="invalid_form")
    if body.count(b"--" + boundary) > MOST_FILES + MOST_FIELDS + 1:
        text = f"got too many parts of a form; expected {MOST_FILES} files, {MOST_FIELDS} fields"
        raise ApiError(400, f"{text} at most", code="invalid_form")


def is_form(scope: Scope) -> bool:
    """Whether a body is multipart/form-data."""
    return _kind(scope) == _FORM


def _kind(scope: Scope) -> str:
    return (header(scope, "content-type") or "").lower().partition(";")[0].strip()


def _is_json(kind: str) -> bool:
    return kind.startswith("application/") and kind.endswith(("/json", "+json"))


def _too_large(most: int) -> ApiError:
    text = f"got a body of more than {most:,} bytes; send smaller images"
    return ApiError(413, text, code="body_too_large")
