"""A whole server with the fake engine, as a process that can be killed at chosen points.

Its routes, below /test, show the hub as it is, so that these tests need no API.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from calotype.cli import _fail
from calotype.errors import CalotypeError
from calotype.serving.front import app, store
from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.jobs import Submission
from calotype.serving.front.rows import Rows
from calotype.serving.front.serve import serve
from calotype.serving.front.settings import ServeSettings
from calotype.serving.job import JobRequest

router = APIRouter()


def as_json(job):
    states = [image.state for image in job.images]
    ids = [image.id for image in job.images]
    return {"id": job.id, "state": job.state, "images": states, "ids": ids}


@router.post("/test/jobs")
async def add(request: Request):
    body = await request.json()
    asked = Submission(
        request=JobRequest(**body["request"]),
        owner=owner_of(request),
        api="native",
        outlives=body["outlives"],
    )
    return JSONResponse(as_json(await hub_of(request).submit(asked)))


@router.get("/test/jobs")
async def jobs(request: Request):
    return JSONResponse([as_json(job) for job in hub_of(request).jobs(owner_of(request))])


@router.get("/test/jobs/{job_id}/events")
async def events(request: Request, job_id: str):
    hub = hub_of(request)
    job = hub.get(job_id, owner_of(request))

    async def lines():
        async for event in hub.events(job):
            yield json.dumps([event.kind, event.data]) + "\n"

    return StreamingResponse(lines())


@router.post("/test/jobs/{job_id}/interrupt")
async def interrupt(request: Request, job_id: str):
    hub = hub_of(request)
    hub.cancel(hub.get(job_id, owner_of(request)), interrupt=True)
    return JSONResponse({})


@router.get("/test/images")
async def images(request: Request):
    found = await hub_of(request).store.listing(None, limit=200)
    return JSONResponse([[image.id, image.prompt, image.seed] for image in found.images])


@router.get("/test/status")
async def status(request: Request):
    hub = hub_of(request)
    engine = hub.work.engines[0]
    return JSONResponse({"pid": engine.pid, "active": hub.work.active, "restarts": engine.restarts})


def kill_at(point, at):
    """End this process the `at`-th time that it comes by a point."""
    owner, name, before = {
        "file": (store, "write_file", True),
        "between": (store, "write_file", False),
        "row": (Rows, "put_image", False),
        "note": (Rows, "add_job", False),
        "end": (Rows, "end_job", True),
    }[point]
    real, seen = getattr(owner, name), [0]

    def replaced(*arguments, **named):
        seen[0] += 1
        if before and seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*arguments, **named)
        if seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, replaced)


def main():
    options = json.loads(sys.argv[1])
    if "kill" in options:
        kill_at(*options.pop("kill"))
    options["data"] = Path(options["data"])
    fake = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
    options["engine_command"] = (*fake, *options.pop("engine", ()))
    build = app.build_app

    def with_tests(*arguments):
        built = build(*arguments)
        built.include_router(router)
        return built

    sys.modules["calotype.serving.front.serve"].build_app = with_tests
    try:
        settings = ServeSettings(**{"port": 0, "step_timeout": 5.0, **options})
        serve(settings, lambda address: print(f"serving on {address}", flush=True))
    except CalotypeError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
