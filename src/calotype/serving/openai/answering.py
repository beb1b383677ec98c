"""From a job to its answer, whole or as a stream; a client that goes away takes its job along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import ApiError
from calotype.serving.front.hub import Hub
from calotype.serving.front.jobs import LAST_EVENTS, Event, Job, JobImage
from calotype.serving.front.links import links_of
from calotype.serving.front.waiting import CLIENT_GONE, data_of, error_of, last_event
from calotype.serving.openai.shapes import DONE, Shape, error_event, text_of

_QUIET_SECONDS = 10.0
"""After which a stream says that it is alive: proxies close what is silent for a minute."""


async def whole(request: Request, job: Job, shape: Shape, headers: dict[str, str]) -> Response:
    """All images of a job at once; releases it.

    Raises:
        ApiError: there is none.
    """
    hub = hub_of(request)
    try:
        last = await last_event(request, job)
        if last is None:
            return Response(status_code=CLIENT_GONE)
        done = [image for image in job.images if image.state == "done"]
        if not done:
            raise error_of(last)
        data = [await _datum(request, job, image, shape) for image in done]
        body = shape.body(done, data, last.data.get("errors", []))
        headers = {**headers, "x-seeds": seeds_of(done)}
        return Response(body, 200, headers, "application/json")
    finally:
        hub.release(job)


def streamed(
    request: Request, job: Job, shape: Shape, *, partial: int, headers: dict[str, str]
) -> Response:
    """The events of a job; it is released when the stream ends or is closed."""
    hub = hub_of(request)
    headers = {**headers, "x-seeds": seeds_of(job.images), "cache-control": "no-cache"}
    headers["x-accel-buffering"] = "no"
    return _Held(_stream(hub, job, shape, partial), lambda: hub.release(job), headers)


def seeds_of(images: list[JobImage]) -> str:
    """Seeds as text, which keeps those beyond 2^53."""
    return ",".join(str(image.seed) for image in images)


class _Held(EventSourceResponse):
    """A stream that does something when it is over, even where it was never begun."""

    def __init__(
        self, stream: AsyncGenerator[bytes, None], over: Callable[[], None], headers: dict[str, str]
    ) -> None:
        super().__init__(stream, headers=headers)
        self._stream = stream
        self._over = over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()
            await self._stream.aclose()


async def _stream(hub: Hub, job: Job, shape: Shape, partial: int) -> AsyncGenerator[bytes, None]:
    async with aclosing(_or_silence(hub.events(job))) as events:
        async for event in events:
            if event is None:
                yield KEEPALIVE_COMMENT
                continue
            data, blob = event.data, event.blob
            if event.kind == "preview" and blob is not None and data["index"] < partial:
                yield shape.partial(data, blob)
            elif event.kind == "image":
                yield await _completed(hub, job, shape, job.images[data["image"]])
            elif event.kind in LAST_EVENTS and event.kind != "done":
                yield error_event(error_of(event))
    yield DONE


async def _completed(hub: Hub, job: Job, shape: Shape, image: JobImage) -> bytes:
    try:
        return shape.completed(image, await data_of(hub, job, image))
    except ApiError as error:  # it was deleted, or memory was short, since it was finished
        return error_event(error)


async def _or_silence(events: AsyncIterator[Event]) -> AsyncGenerator[Event | None, None]:
    """Events as they come, and None where none has come for a while."""
    upcoming: asyncio.Task[Event] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.create_task(_next(events))
            await asyncio.wait({upcoming}, timeout=_QUIET_SECONDS)
            if not upcoming.done():
                yield None
                continue
            event, upcoming = upcoming.result(), None
            yield event
            if event.kind in LAST_EVENTS:
                return
    finally:
        if upcoming is not None:
            upcoming.cancel()


async def _next(events: AsyncIterator[Event]) -> Event:
    """The next event; where there is none any more, the job is over and its end was not kept."""
    async for event in events:
        return event
    return Event(0, "done", {})


async def _datum(request: Request, job: Job, image: JobImage, shape: Shape) -> bytes:
    """An image in an answer, as JSON: its file, or a link to it."""
    data = await data_of(hub_of(request), job, image)
    if not shape.as_links:
        await asyncio.sleep(0)  # others have their turn between images
        return json.dumps({"b64_json": text_of(data)}).encode()
    start = hub_of(request).settings.public_url or str(request.base_url)
    address = start.rstrip("/") + links_of(request).add(job, image)
    return json.dumps({"url": address}).encode()
