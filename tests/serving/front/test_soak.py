"""Many jobs and many listeners: memory stays, and the front goes on answering."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

SCRIPT = Path(__file__).parents[1] / "soak.py"


@pytest.mark.slow
@pytest.mark.parametrize("api", ["native", "openai"])
def test_memory_does_not_grow_with_jobs(api) -> None:
    command = [sys.executable, str(SCRIPT), api, "3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    first, *_, last = map(float, done.stdout.split())
    assert last <= 1.05 * first + 1, done.stdout


@pytest.mark.slow
def test_idle_streams_keep_nobody_waiting(serve_at, fake, submission) -> None:
    from calotype.serving.front.context import hub_of

    streams = 400  # each is two of the process's open files

    async def listen(url, path):
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        return reader, writer

    async def everybody(url):
        found = [await listen(url, "/test/events") for _ in range(streams)]
        waits = []
        async with httpx.AsyncClient() as client:
            for _ in range(20):
                began = time.monotonic()
                await client.get(f"{url}/healthz")
                waits.append(time.monotonic() - began)
            for _, writer in found[::2]:
                writer.transport.abort()  # half of them go without a word
            await client.get(f"{url}/test/cancel")
        ends = await asyncio.gather(*(reader.read() for reader, _ in found[1::2]))
        for _, writer in found[1::2]:
            writer.close()
        return waits, ends

    with serve_at(fake()) as (url, app):
        jobs = []

        @app.get("/test/events")
        async def events(request: Request):
            hub = hub_of(request)
            if not jobs:
                jobs.append(await hub.submit(submission("wait", outlives=True)))

            async def lines():
                async for event in hub.events(jobs[0]):
                    yield f"{event.kind}\n"

            return StreamingResponse(lines(), headers={"connection": "close"})

        @app.get("/test/cancel")
        async def cancel(request: Request):
            hub_of(request).cancel(jobs[0])
            return "ok"

        waits, ends = asyncio.run(everybody(url))
    assert sorted(waits)[len(waits) // 2] < 0.05
    assert all(b"cancelled" in end for end in ends) and len(ends) == streams // 2
    assert not jobs[0].changed  # nobody listens any more
