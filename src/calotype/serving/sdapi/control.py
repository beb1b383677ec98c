"""How far a client's jobs are, and how they are ended early."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.jobs import Event, Job
from calotype.serving.sdapi.answering import text_of
from calotype.serving.sdapi.desk import desk_of, open_jobs
from calotype.serving.sdapi.shapes import ERRORS

router = APIRouter(prefix="/sdapi/v1", responses=ERRORS)


@router.get("/progress")
async def progress(
    request: Request, skip_current_image: bool = False, force_task_id: str | None = None
) -> dict[str, Any]:
    """Of the oldest of the client's jobs that has begun, else of the oldest that waits."""
    jobs = open_jobs(request, force_task_id)
    job = next((one for one in jobs if one.started is not None), jobs[0] if jobs else None)
    desk = desk_of(request)
    if not skip_current_image:
        desk.watch(owner_of(request) if job is None else job.owner)
    step = None if job is None else _newest(job, "step")
    preview = None if job is None or skip_current_image else _newest(job, "preview")
    images = [] if job is None else job.images
    state = {
        "skipped": job in desk.skipped,
        "interrupted": job in desk.interrupted,
        "stopping_generation": job in desk.interrupted,
        "job": "" if job is None else job.id,
        "job_count": sum(len(one.images) for one in jobs),
        "job_timestamp": "0" if job is None else _stamp(job.created),
        "job_no": sum(not image.is_open for image in images),
        "sampling_step": 0 if step is None else step.data["step"],
        "sampling_steps": 0 if step is None else step.data["steps"],
    }
    fractions = [image.fraction if image.is_open else 1.0 for image in images]
    blob = None if preview is None else preview.blob
    return {
        "progress": sum(fractions) / len(fractions) if fractions else 0.0,
        "eta_relative": 0.0 if job is None or job.eta_seconds is None else job.eta_seconds,
        "state": state,
        "current_image": None if blob is None else text_of(blob),
        "textinfo": None if job is None else _text(job),
    }


@router.post("/interrupt")
async def interrupt(request: Request, force_task_id: str | None = None) -> dict[str, Any]:
    """End the client's jobs: what is computed is answered as it is now."""
    for job in open_jobs(request, force_task_id):
        desk_of(request).interrupted.add(job)
        hub_of(request).cancel(job, interrupt=True)
    return {}


@router.post("/skip")
async def skip(request: Request, force_task_id: str | None = None) -> dict[str, Any]:
    """Finish as they are now the images that are computed; the others go on."""
    for job in open_jobs(request, force_task_id):
        desk_of(request).skipped.add(job)
        hub_of(request).work.skip(job)
    return {}


def _newest(job: Job, kind: str) -> Event | None:
    found = [event for event in job.events.values() if event.kind == kind]
    return max(found, key=lambda event: event.number, default=None)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))


def _text(job: Job) -> str | None:
    if job.started is not None or job.position is None:
        return None
    return f"waiting: {job.position} images are before it"
