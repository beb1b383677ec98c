"""Waiting for a job on behalf of a client that may go away meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.requests import Request

from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import ApiError, job_cancelled, job_failed
from calotype.serving.front.hub import Hub
from calotype.serving.front.jobs import LAST_EVENTS, Event, Job, JobImage

CLIENT_GONE = 499
"""The status of an answer that nobody gets, as nginx calls it."""


async def last_event(request: Request, job: Job) -> Event | None:
    """The last event of a job; None where the client closes its connection before."""
    ending = asyncio.ensure_future(_last_event(hub_of(request), job))
    going = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((ending, going), return_when=asyncio.FIRST_COMPLETED)
        return ending.result() if ending.done() else None
    finally:
        ending.cancel()
        going.cancel()


def error_of(last: Event) -> ApiError:
    """What the last event of a job without images means for whoever asked for them."""
    if last.kind == "failed":
        return job_failed(last.data["kind"], last.data["message"])
    return job_cancelled()


async def data_of(hub: Hub, job: Job, image: JobImage) -> bytes:
    """The file of a finished image, which memory may have let go of since.

    Raises:
        ApiError: it is nowhere any more.
    """
    return image.data or (await hub.file(image.id, job.owner)).data


async def _last_event(hub: Hub, job: Job) -> Event:
    async with aclosing(hub.events(job)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.kind in LAST_EVENTS:
                return event
    return Event(0, "done", {})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
