"""From a job to its answer, whole or as a stream; a client that goes away takes its job along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import ApiError, job_cancelled, job_failed
from calotype.serving.front.hub import Hub
from calotype.serving.front.jobs import LAST_EVENTS, Event, Job, JobImage
from calotype.serving.front.links import links_of
from calotype.serving.openai.shapes import DONE, Shape, error_event, text_of

_QUIET_SECONDS = 10.0
"""After which a stream says that it is alive: proxies close what is silent for a minute."""
CLIENT_GONE = 499


async def whole(request: Request, job: Job, shape: Shape, headers: dict[str, str]) -> Response:
    """All images of a job at once; releases it.

    Raises:
        ApiError: there is none.
    """
    hub = hub_of(request)
    try:
        last = await _unless_gone(_last_event(hub, job), request)
        if last is None:
            return Response(status_code=CLIENT_GONE)
        done = [image for image in job.images if image.state == "done"]
        if not done:
            raise _why(last)
        data = [await _datum(request, job, image, shape) for image in done]
        body = shape.body(done, data)
        if last.kind != "done":
            body["errors"] = last.data.get("errors", [])
        return JSONResponse(body, headers={**headers, "x-seeds": seeds_of(done)})
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
        self, stream: AsyncIterator[bytes], over: Callable[[], None], headers: dict[str, str]
    ) -> None:
        super().__init__(stream, headers=headers)
        self._over = over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


async def _stream(hub: Hub, job: Job, shape: Shape, partial: int) -> AsyncIterator[bytes]:
    async for event in _or_silence(hub.events(job)):
        if event is None:
            yield KEEPALIVE_COMMENT
        elif event.kind == "preview" and event.blob is not None and event.data["index"] < partial:
            yield shape.partial(event.data, event.blob)
        elif event.kind == "image":
            image = job.images[event.data["image"]]
            try:
                blob = event.blob or await _file(hub, job, image)
            except ApiError as error:
                yield error_event(error)
            else:
                yield shape.completed(image, blob)
        elif event.kind in LAST_EVENTS and event.kind != "done":
            yield error_event(_why(event))
    yield DONE


async def _or_silence(events: AsyncIterator[Event]) -> AsyncIterator[Event | None]:
    """Events as they come, and None where none has come for a while."""
    upcoming: asyncio.Future[Event] | None = None
    try:
        while True:
            if upcoming is None:
                upcoming = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
            await asyncio.wait({upcoming}, timeout=_QUIET_SECONDS)
            if not upcoming.done():
                yield None
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield event
    finally:
        if upcoming is not None:
            upcoming.cancel()


async def _last_event(hub: Hub, job: Job) -> Event:
    async with aclosing(hub.events(job)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.kind in LAST_EVENTS:
                return event
    return Event(0, "done", {})


async def _unless_gone(work: Awaitable[Event], request: Request) -> Event | None:
    """What is awaited; None where the client closes its connection before."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _datum(request: Request, job: Job, image: JobImage, shape: Shape) -> dict[str, str]:
    """An image in an answer: its file, or a link to it."""
    data = await _file(hub_of(request), job, image)
    if not shape.as_links:
        return {"b64_json": text_of(data)}
    start = hub_of(request).settings.public_url or str(request.base_url)
    return {"url": start.rstrip("/") + links_of(request).add(job, image)}


async def _file(hub: Hub, job: Job, image: JobImage) -> bytes:
    """A finished image, which memory may have let go of since."""
    return image.data or (await hub.file(image.id, job.owner)).data


def _why(last: Event) -> ApiError:
    if last.kind == "failed":
        return job_failed(last.data["kind"], last.data["message"])
    return job_cancelled()
