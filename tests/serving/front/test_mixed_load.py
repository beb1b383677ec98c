"""All that clients do to a server, at the same time; afterwards nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "fake_server.py"
SECONDS = 12.0
IDLE, HALF_OPEN, NEVER_READ, SLOW, WORKERS = 300, 20, 5, 5, 10
SIZES = ((16, 16), (64, 64), (100, 60), (256, 256), (70, 300), (512, 512))


@pytest.fixture
def process(tmp_path):
    """A server as a process, and its address."""
    options = json.dumps({"data": str(tmp_path), "active": 8, "drain": 5.0, "step_timeout": 30.0})
    with open(tmp_path / "log", "wb") as log:
        command = [sys.executable, str(SCRIPT), options]
        found = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield found, found.stdout.readline().removeprefix("serving on ").strip()
    finally:
        found.kill()
        found.communicate()


def held(pid):
    """Open files and threads of a process."""
    return tuple(len(list(Path(f"/proc/{pid}/{of}").iterdir())) for of in ("fd", "task"))


async def settled(process, most, seconds=20.0):
    """Files and threads, once there are no more than so many, or after that time."""
    end = time.monotonic() + seconds
    while any(now > one for now, one in zip(held(process.pid), most, strict=True)):
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.1)
    return held(process.pid)


class Clients:
    """All of one server, each from an address of its own; `check` fails where one was let down."""

    def __init__(self, url):
        self.url, self.waits, self.counts = url, [], {}
        self.parts = urlsplit(url)

    def client(self, number):
        transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{number}")
        return httpx.AsyncClient(base_url=self.url, transport=transport, timeout=60)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    async def add(self, client, prompt, **request):
        answer = await client.post("/api/v1/jobs", json={"prompt": prompt, **request})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def state(self, client, job):
        return (await client.get(f"/api/v1/jobs/{job}")).json()["state"]

    async def connect(self, text, *, buffer=None):
        """A connection on which so much is sent, and nothing read."""
        link = socket.socket()
        if buffer is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(link, (self.parts.hostname, self.parts.port))
        await loop.sock_sendall(link, text.encode())
        return link

    def get(self, path):
        return f"GET {path} HTTP/1.1\r\nHost: {self.parts.netloc}\r\n\r\n"

    async def healthz(self, until):
        async with self.client(1) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                assert (await client.get("/healthz")).status_code == 200
                self.waits.append(time.monotonic() - began)
                await asyncio.sleep(0.05)

    async def worker(self, number, until):
        """One after the other, all that a client may want, and how it may leave."""
        chance = random.Random(number)
        ways = (self.whole, self.deleted, self.listened, self.left, self.left_amid)
        async with self.client(10 + number) as client:
            while time.monotonic() < until:
                way = chance.choice(ways)
                await way(client, chance.choice(SIZES), 1 + chance.randrange(2))
                self.count(way.__name__)

    async def whole(self, client, size, n):
        body = {"prompt": "a fox", "size": f"{size[0]}x{size[1]}", "n": n}
        answer = await client.post("/v1/images/generations", json=body)
        assert answer.status_code == 200 and len(answer.json()["data"]) == n, answer.text

    async def deleted(self, client, size, n):
        job = await self.add(client, "silent", size=size, n=n)
        await asyncio.sleep(0.02)
        assert (await client.delete(f"/api/v1/jobs/{job}")).json()["state"] == "cancelled"

    async def listened(self, client, size, n):
        job = await self.add(client, "a fox", size=size, n=n, steps=8)
        async with client.stream("GET", f"/api/v1/jobs/{job}/events") as stream:
            lines = [line async for line in stream.aiter_lines()]
        assert lines.count("event: image") == n and "event: done" in lines

    async def left(self, client, size, n):
        body = {"prompt": "silent", "size": f"{size[0]}x{size[1]}", "n": n}
        with suppress(httpx.ReadTimeout):
            await client.post(
                "/v1/images/generations", json=body, timeout=httpx.Timeout(60, read=0.1)
            )
            raise AssertionError("it never ends")

    async def left_amid(self, client, size, n):
        body = {"prompt": "silent", "size": f"{size[0]}x{size[1]}", "n": n, "stream": True}
        async with client.stream("POST", "/v1/images/generations", json=body) as stream:
            assert stream.status_code == 200
            await asyncio.sleep(0.05)

    async def slow_reader(self, until):
        """Takes a fifth of a second a kilobyte, then the rest at once; misses no image."""
        async with self.client(2) as client:
            job = await self.add(client, "a fox", steps=256, size=(256, 256))
            reader, writer = await asyncio.open_connection(self.parts.hostname, self.parts.port)
            writer.write(self.get(f"/api/v1/jobs/{job}/events").encode())
            found = b""
            while b"event: done" not in found:
                found += await reader.read(1024 if time.monotonic() < until else 2**20)
                await asyncio.sleep(0.2 if time.monotonic() < until else 0)
            writer.close()
            assert found.count(b"event: image") == 1

    async def done(self, client, job):
        """Nobody reads of it, and yet it ends; soon, for old ones are forgotten."""
        while (state := await self.state(client, job)) != "done":
            assert state in ("queued", "running")
            await asyncio.sleep(0.1)

    async def run(self, seconds):
        """All of them for so long; their sockets are closed at the end."""
        until = time.monotonic() + seconds
        async with AsyncExitStack() as links, self.client(3) as client:
            quiet = await self.add(client, "silent")
            busy = await self.add(client, "a fox", n=4, steps=256, size=(256, 256))
            events = f"/api/v1/jobs/{quiet}/events"
            idle = [await self.connect(self.get(events)) for _ in range(IDLE)]
            half = [await self.connect("GET / HTTP/1.1\r\nHost: ") for _ in range(HALF_OPEN)]
            unread = self.get(f"/api/v1/jobs/{busy}/events")
            never = [await self.connect(unread, buffer=4096) for _ in range(NEVER_READ)]
            for link in (*idle, *half, *never):
                links.callback(link.close)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.healthz(until))
                group.create_task(self.done(client, busy))
                for number in range(WORKERS):
                    group.create_task(self.worker(number, until))
                for _ in range(SLOW):
                    group.create_task(self.slow_reader(until))
            assert await self.state(client, quiet) == "running"
            for link in idle[::2]:
                link.close()  # half of them go before their job does
            assert (await client.delete(f"/api/v1/jobs/{quiet}")).json()["state"] == "cancelled"
            for link in idle[1::2]:
                assert b"event: cancelled" in await everything(link)


async def everything(link):
    """What has come and comes, until its last event."""
    found = b""
    async with asyncio.timeout(30):
        while b"event: cancelled" not in found:
            piece = await asyncio.get_running_loop().sock_recv(link, 2**16)
            assert piece, found
            found += piece
    return found


def test_nothing_is_left_of_mixed_load(process, tmp_path) -> None:
    async def test(server, url):
        await Clients(url).run(2.0)  # threads that are made once, and connections of the first
        before = await settled(server, (0, 0), 3.0)
        clients = Clients(url)
        await clients.run(SECONDS)
        after = await settled(server, (before[0] + 5, before[1] + 2))
        async with clients.client(4) as client:
            jobs = (await client.get("/api/v1/jobs?limit=500")).json()["jobs"]
            queue = (await client.get("/api/v1/status")).json()["queue"]
        return clients, before, after, {job["state"] for job in jobs}, queue

    server, url = process
    clients, before, after, states, queue = asyncio.run(test(server, url))
    assert min(clients.counts.values()) >= 3 and len(clients.counts) == 5, clients.counts
    assert states == {"done", "cancelled"}
    assert (queue["waiting"], queue["active"]) == (0, 0)
    assert len(clients.waits) > 20 and statistics.median(clients.waits) < 0.25
    assert after[0] <= before[0] + 5 and after[1] <= before[1] + 2, (before, after)
    server.terminate()
    assert server.wait(30) == 0
    with sqlite3.connect(tmp_path / "serve.sqlite") as rows:
        assert rows.execute("SELECT count(*) FROM jobs WHERE ended IS NULL").fetchone() == (0,)
