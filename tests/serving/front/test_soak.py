"""Many jobs and many listeners: memory stays, and the front goes on answering."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from calotype.serving.front.jobs import Owner
from calotype.web.addresses import listen

SCRIPT = Path(__file__).parents[1] / "soak.py"


@pytest.mark.slow
@pytest.mark.parametrize("api", ["native", "openai"])
def test_memory_does_not_grow_with_jobs(api) -> None:
    command = [sys.executable, str(SCRIPT), api, "2000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    first, *_, last = map(float, done.stdout.split())
    assert last <= 1.05 * first + 1, done.stdout


@pytest.fixture
def many_files():
    """Room for a thousand connections, each of which is two of this process's open files."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))


@pytest.mark.slow
def test_a_thousand_idle_streams_keep_nobody_waiting(
    serve_at, fake, submission, many_files
) -> None:
    from calotype.serving.front.context import hub_of

    streams = 1000

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

    with serve_at(fake(active=1)) as (url, app):
        jobs = []

        @app.get("/test/events")
        async def events(request: Request):
            hub = hub_of(request)
            if not jobs:  # one that works, and one that waits, which is silent
                for prompt in ("wait", "a fox"):
                    jobs.append(await hub.submit(submission(prompt, outlives=True)))

            async def lines():
                async for event in hub.events(jobs[1]):
                    yield f"{event.kind}\n"

            return StreamingResponse(lines(), headers={"connection": "close"})

        @app.get("/test/cancel")
        async def cancel(request: Request):
            hub_of(request).cancel(jobs[1])
            return "ok"

        waits, ends = asyncio.run(everybody(url))
    assert sorted(waits)[len(waits) // 2] < 0.05
    assert all(b"cancelled" in end for end in ends) and len(ends) == streams // 2
    assert not jobs[1].changed  # nobody listens any more


@pytest.mark.slow
def test_a_reader_that_does_not_read_misses_no_image(serve_at, fake, monkeypatch) -> None:
    def small(host, port):
        found = listen(host, port)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # as a slow network's
        return found

    monkeypatch.setattr("calotype.web.addresses.listen", small)
    with serve_at(fake()) as (url, app), httpx.Client(base_url=url, timeout=20) as client:
        body = {"prompt": "a fox", "steps": 256, "n": 4}
        job = client.post("/api/v1/jobs", json=body).json()["id"]
        parts = urlsplit(url)
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.settimeout(20)
            link.connect((parts.hostname, parts.port))
            get = f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
            link.sendall(get.encode())
            with client.stream("GET", f"/api/v1/jobs/{job}/events") as stream:
                quick = sum(line.startswith("event: step") for line in stream.iter_lines())
            found = app.state.hub.get(job, Owner(None, "127.0.0.1"))
            assert found.is_over and found.size < 20_000
            answer = b""
            while b"event: done" not in answer and (piece := link.recv(2**16)):
                answer += piece
    assert answer.count(b"event: image") == 4 and b"event: done" in answer
    assert answer.count(b"event: step") < 0.8 * quick, (len(answer), quick)
