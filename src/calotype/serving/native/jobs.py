"""Jobs: submitted, looked at, followed and cancelled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse

from calotype.serving.front.context import hub_of, owner_of, request_id_of
from calotype.serving.front.jobs import Job, Submission
from calotype.serving.native.asked import BODY, LEAST_PREVIEW, MOST_PREVIEW, asked_of
from calotype.serving.native.shapes import ROOT, event_fields, job_fields
from calotype.serving.native.small import smaller

router = APIRouter(prefix=f"{ROOT}/jobs")
_MOST_NUMBER = 2**53


async def _job_of(request: Request, job_id: str) -> Job:
    """The job that a path names."""
    return hub_of(request).get(job_id, owner_of(request))


FoundJob = Annotated[Job, Depends(_job_of)]


@router.post("", status_code=202, openapi_extra={"requestBody": BODY})
async def submit(
    request: Request,
    previews: bool = True,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> JSONResponse:
    """Queue a job; it goes on whoever listens."""
    asked = await asked_of(request)
    hub = hub_of(request)
    job = await hub.submit(
        Submission(
            request=asked.request,
            owner=owner_of(request),
            api="native",
            request_id=request_id_of(request),
            source=asked.source,
            mask=asked.mask,
            previews="steps" if previews else "none",
            preview_side=asked.preview_side,
            idempotency_key=idempotency_key,
            outlives=True,
        )
    )
    hub.release(job)
    return JSONResponse(job_fields(job), 202, {"location": f"{ROOT}/jobs/{job.id}"})


@router.get("")
async def jobs(
    request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> dict[str, Any]:
    """The jobs of whoever asks, newest first."""
    found = hub_of(request).jobs(owner_of(request))
    return {"jobs": [job_fields(job) for job in found[:limit]]}


@router.get("/{job_id}")
async def one_job(found: FoundJob) -> dict[str, Any]:
    """A job as it is now."""
    return job_fields(found)


@router.delete("/{job_id}")
async def cancel(request: Request, found: FoundJob) -> dict[str, Any]:
    """Cancel a job; its finished images stay."""
    hub_of(request).cancel(found)
    return job_fields(found)


@router.post("/{job_id}/interrupt")
async def interrupt(request: Request, found: FoundJob) -> dict[str, Any]:
    """Finish a job's images as they are now; those that wait are cancelled."""
    hub_of(request).cancel(found, interrupt=True)
    return job_fields(found)


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def events(
    request: Request,
    found: FoundJob,
    previews: bool = True,
    side: Annotated[int, Query(ge=LEAST_PREVIEW, le=MOST_PREVIEW)] = MOST_PREVIEW,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """What happened to a job after the event Last-Event-ID, then what happens, to its end.

    Previews are left out, or `side` pixels long at most; they are made at the job's
    `preview_side`.
    """
    after = 0
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id[:18]), _MOST_NUMBER)
    async for event in hub_of(request).events(found, after=after):
        if event.kind == "preview" and not previews:
            continue
        event = await smaller(event, side)
        data = json.dumps(event_fields(event), separators=(",", ":"))
        yield ServerSentEvent(raw_data=data, event=event.kind, id=str(event.number))
