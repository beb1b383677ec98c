"""From a request to its answer; a client that goes away takes its job along."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from calotype.serving.front.context import hub_of, owner_of, request_id_of
from calotype.serving.front.jobs import Job, JobImage, Mask, Submission
from calotype.serving.front.uploads import Upload
from calotype.serving.front.waiting import CLIENT_GONE, data_of, error_of, last_event
from calotype.serving.job import JobRequest
from calotype.serving.sdapi.desk import API, desk_of

_PREVIEW = 256  # pixels of the longer side
NOBODY = Response(status_code=CLIENT_GONE)
"""What is answered to those who have gone."""


async def submitted(
    request: Request, wanted: JobRequest, source: Upload | None = None, hole: Mask | None = None
) -> Job:
    """A job of this API; the caller releases it.

    Raises:
        ApiError: it is refused.
    """
    owner = owner_of(request)
    submission = Submission(
        request=wanted,
        owner=owner,
        api=API,
        request_id=request_id_of(request),
        source=source,
        mask=hole,
        previews="steps" if desk_of(request).is_watched(owner) else "partial",
        preview_side=_PREVIEW,
        preview_format="png",
        idempotency_key=request.headers.get("idempotency-key") or None,
    )
    return await hub_of(request).submit(submission)


async def made(request: Request, job: Job) -> list[JobImage] | None:
    """The images of a job when it is over, maybe fewer than asked for; None = the client has gone.

    Raises:
        ApiError: there is none, and nobody has interrupted it.
    """
    last = await last_event(request, job)
    if last is None:
        return None
    images = [image for image in job.images if image.state == "done"]
    if images or job in desk_of(request).interrupted:
        return images
    raise error_of(last)


async def texts_of(request: Request, job: Job, images: Sequence[JobImage]) -> list[str]:
    """Files as base64."""
    hub = hub_of(request)
    files = [await data_of(hub, job, one) for one in images]
    return [await asyncio.to_thread(text_of, data) for data in files]


def text_of(data: bytes) -> str:
    """A file as bare base64."""
    return base64.b64encode(data).decode()


async def as_json(found: dict[str, Any], headers: dict[str, str]) -> Response:
    """An answer that may be large: the event loop goes on meanwhile."""
    return await asyncio.to_thread(JSONResponse, found, headers=headers)
