"""Servers with the fake engine: in this process, and on a port."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


def pytest_collection_modifyitems(items):
    """Slow ones wait for processes and browsers, which a busy machine may hold up: twice more."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=2))


def fake_settings(**changes):
    """Settings of a server whose engine is `fake_engine.py`."""
    from calotype.serving.front.settings import ServeSettings

    return ServeSettings(**{"engine_command": FAKE, "step_timeout": 5.0, "drain": 2.0, **changes})


def wait_until(condition, seconds=30.0):
    """Look until it holds, or fail."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


@contextmanager
def served_at(settings):
    """A real server on a free port, in a thread; its address and its application."""
    import uvicorn

    from calotype.serving.front.app import build_app
    from calotype.serving.front.connections import UVICORN
    from calotype.serving.front.guarded import guarded
    from calotype.serving.front.observer import Observer
    from calotype.web.addresses import listen

    listening = listen("127.0.0.1", 0)
    settings = dataclasses.replace(settings, port=listening.getsockname()[1])
    observer = Observer()
    app = build_app(settings, observer=observer)
    site = guarded(app, settings, observer, folder=settings.data)
    config = uvicorn.Config(site, log_level="warning", lifespan="on", **UVICORN)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        wait_until(lambda: app.state.hub.work.engines[0].state == "ready", seconds=120)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.fixture
def client():
    """A client of an application in this process; streams come whole, when they have ended."""
    from starlette.testclient import TestClient

    from calotype.serving.front.app import build_app

    app = build_app(fake_settings())
    address = "http://127.0.0.1:8000"
    with TestClient(app, base_url=address, client=("127.0.0.1", 50000)) as found:
        wait_until(lambda: found.get("/readyz").status_code == 200)
        yield found


@pytest.fixture(scope="module")
def served():
    """The address of a real server with the fake engine, one a module."""
    with served_at(fake_settings()) as (address, _):
        yield address


@pytest.fixture(scope="session")
def fake():
    """Make settings of a server with the fake engine: `fake(active=1)`."""
    return fake_settings


@pytest.fixture(scope="session")
def serve_at():
    """A real server of given settings: `with serve_at(fake(drain=1)) as (address, app)`."""
    return served_at


@pytest.fixture(scope="session")
def until():
    """Look until it holds, or fail: `until(lambda: hub.work.active, seconds=1)`."""
    return wait_until


@pytest.fixture
def with_hub(monkeypatch):
    """Run a coroutine function on a hub with the fake engine: `with_hub(test, active=1)`."""
    import asyncio

    from calotype.serving.front import engine
    from calotype.serving.front.start import open_store, running_hub

    monkeypatch.setattr(engine, "_LEAST_BACKOFF", 0.05)  # a test does not wait for good manners
    monkeypatch.setattr(engine, "_MOST_BACKOFF", 0.1)

    def run(test, **changes):
        settings = fake_settings(**changes)

        async def inside():
            async with asyncio.timeout(120), running_hub(settings, open_store(settings)) as hub:
                return await test(hub)

        return asyncio.run(inside())

    return run


@pytest.fixture
def submission():
    """Make what an API submits: `submission("a fox", request={"n": 2}, outlives=True)`."""
    from calotype.serving.front.jobs import Owner, Submission
    from calotype.serving.job import JobRequest

    def make(prompt="a fox", *, client="10.0.0.1", request=None, **rest):
        wanted = JobRequest(**{"prompt": prompt, "seed": 1, **(request or {})})
        return Submission(
            **{"request": wanted, "owner": Owner(None, client), "api": "native", **rest}
        )

    return make


@pytest.fixture
def conforming():
    """The checks that an answer passes which is as its route describes it."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]


@pytest.fixture
def tried():
    """Send what schemathesis makes up to a route; how many requests, all of which pass."""
    from hypothesis import HealthCheck, given, seed, settings

    def run(operation, mode, address, wanted):
        count = 0

        @seed(1)
        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            nonlocal count
            count += 1
            case.call_and_validate(base_url=address, checks=wanted)

        check()
        return count

    return run
