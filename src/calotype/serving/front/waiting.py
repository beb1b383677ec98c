"""Waiting for a job on behalf of a client that may go away meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.requests import Request

from calotype.serving.front.context import hub_of
from calotype.serving.front.hub import Hub
from calotype.serving.front.jobs import LAST_EVENTS, Event, Job


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


async def _last_event(hub: Hub, job: Job) -> Event:
    async with aclosing(hub.events(job)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.kind in LAST_EVENTS:
                return event
    return Event(0, "done", {})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
