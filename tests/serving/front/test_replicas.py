"""The hub's contract on two replicas of a local Ray, and what becomes of lost ones."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from calotype.serving.front import engine
from calotype.serving.front import replicas as module
from calotype.serving.front.jobs import Owner
from calotype.serving.front.start import running_hub

pytestmark = pytest.mark.slow


def _contract():
    spec = importlib.util.spec_from_file_location(
        "hub_contract", Path(__file__).parent / "test_hub.py"
    )
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


LEFT_OUT = {
    "test_another_hole_of_one_mask_is_another_request",  # asks no hub
    "test_a_hanging_step_is_ended",  # here with a longer patience, below
}
globals().update(
    (name, test)
    for name, test in vars(_contract()).items()
    if name.startswith("test_") and name not in LEFT_OUT
)


@pytest.fixture(scope="module")
def cluster(start_ray):
    """A local Ray, one for this module."""
    pytest.importorskip("ray.serve")
    return start_ray(4)


@pytest.fixture(scope="module")
def loop():
    """An event loop in a thread of its own."""
    found = asyncio.new_event_loop()
    thread = threading.Thread(target=found.run_forever)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join()
    found.close()


@pytest.fixture(scope="module")
def hub(cluster, loop, fake):
    """A hub on two replicas."""
    settings = fake(ray="auto", replicas=(2, 2), active=2, step_timeout=20.0)
    running = running_hub(settings, None)
    found = asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(60)
    asyncio.run_coroutine_threadsafe(until(lambda: len(ready(found)) == 2, 180), loop).result(200)
    yield found
    asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(60)
    assert not found.work.engines[0].pid and not children()


@pytest.fixture
def with_hub(hub, loop, monkeypatch):
    """As the other `with_hub`, on this module's hub, which is left idle and with two replicas."""
    monkeypatch.setattr(engine, "_LEAST_BACKOFF", 0.05)
    monkeypatch.setattr(engine, "_MOST_BACKOFF", 0.1)

    async def changed(test, changes):
        before = {name: getattr(hub.settings, name) for name in changes}
        try:
            for name, value in changes.items():  # of the one record that all parts look at
                object.__setattr__(hub.settings, name, value)
            return await test(hub)
        finally:
            for name, value in before.items():
                object.__setattr__(hub.settings, name, value)
            for job in hub.jobs(Owner(None, "")):
                hub.cancel(job)
            await until(lambda: not hub.work.active and len(ready(hub)) == 2)

    def run(test, **changes):
        return asyncio.run_coroutine_threadsafe(changed(test, changes), loop).result(180)

    return run


def ready(hub):
    return [one for one in hub.work.engines if one.state == "ready"]


def children():
    """Fake engines that live in replicas of this process's Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            pid = int(path.parent.name)
            if b"fake_engine.py" in path.read_bytes() and is_of_replica(pid):
                found.append(pid)
    return found


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_of_replica(pid):
    replica = above = parent_of(pid)
    while above not in (0, os.getpid()):
        above = parent_of(above)
    return above != 0 and b"ray::" in Path(f"/proc/{replica}/cmdline").read_bytes()


async def until(condition, seconds=90.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def ended(hub, job):
    return [event.kind async for event in hub.events(job)][-1]


def test_a_second_replica_comes_when_one_is_full_and_goes_when_idle(
    with_hub, submission, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 2.0)

    async def test(hub):
        await until(lambda: len(ready(hub)) == 1)
        job = await hub.submit(submission("wait", request={"n": 4}))
        await until(lambda: len(ready(hub)) == 2)
        await until(lambda: sum(image.state == "running" for image in job.images) > 2)
        pids = {one.pid for one in ready(hub)}
        hub.cancel(job)
        await until(lambda: len(ready(hub)) == 1)
        await until(lambda: len(children()) == 1)
        return pids

    assert len(with_hub(test, replicas=(1, 2))) == 2


@pytest.mark.parametrize("what", ["engine", "replica"])
def test_images_of_a_lost_replica_come_once(with_hub, submission, what) -> None:
    async def test(hub):
        job = await hub.submit(submission("slow", request={"n": 3, "steps": 20}))
        await until(lambda: all(image.state != "queued" for image in job.images))
        pid = ready(hub)[0].pid
        if what == "replica":
            os.kill(parent_of(pid), signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        events = [event async for event in hub.events(job)]
        await until(lambda: pid not in children(), 10)
        return job, events

    job, events = with_hub(test)
    assert job.state == "done" and max(image.deaths for image in job.images) == 1
    told = [event.data["image"] for event in events if event.kind == "image"]
    assert sorted(told) == [0, 1, 2]


def test_a_hanging_engine_is_ended(with_hub, submission, hub, monkeypatch) -> None:
    async def test(hub):
        for one in hub.work.engines:
            monkeypatch.setattr(one, "_step_timeout", 5.0)
        began = time.monotonic()
        job = await hub.submit(submission("hang once"))
        return await ended(hub, job), time.monotonic() - began

    kind, seconds = with_hub(test)
    assert kind == "done" and seconds < 60


FRONT = """
import asyncio, sys
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.start import running_hub

async def main():
    settings = ServeSettings(ray=sys.argv[1], engine_command=tuple(sys.argv[2:]))
    async with running_hub(settings, None) as hub:
        while not hub.work.engines[0].pid:
            await asyncio.sleep(0.05)
        print(hub.work.engines[0].pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_front_leaves_no_engine(hub, cluster, loop, fake) -> None:
    address = cluster.get_runtime_context().gcs_address
    command = [sys.executable, "-c", FRONT, address, *fake().engine_command]
    before = applications()
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as front:
            pid = int(front.stdout.readline())
            assert pid in children()
            assert len(applications() - before) == 1, "that of the one before is gone"
            front.kill()
        waiting = until(lambda pid=pid: pid not in children(), 40)
        asyncio.run_coroutine_threadsafe(waiting, loop).result(60)
    assert ready(hub), "another front's engines live on"
    assert before <= applications()


def applications():
    from ray import serve

    return set(serve.status().applications)
