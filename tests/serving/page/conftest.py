"""The page in front of a mock of the API, Debian's Chromium, and axe-core from npm."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
import time
from pathlib import Path

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


def _mock_api():
    spec = importlib.util.spec_from_file_location("mock_api", Path(__file__).parent / "mock_api.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["mock_api"] = module
    spec.loader.exec_module(module)
    return module


class Served:
    """A mock on a port of its own; it can go away and come back."""

    def __init__(self, mock, build):
        self.mock, self.build = mock, build
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self):
        import uvicorn

        config = uvicorn.Config(
            self.build(self.mock), port=self.port, log_level="error", timeout_graceful_shutdown=0
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < until, "the mock does not start"
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(timeout=10)


@pytest.fixture(scope="session")
def mock_api():
    return _mock_api()


@pytest.fixture
def served(mock_api):
    """A page with 30 images in its library."""
    mock = mock_api.Mock(step_seconds=0.03, steps=6)
    mock.fill(30)
    server = Served(mock, mock_api.build)
    yield server
    server.stop()


@pytest.fixture
def visit(chromium, served):
    """Open the page; what its console complains of fails the test, as does a foreign request."""
    contexts, complaints = [], []

    def go(path="", *, viewport=DESKTOP, **options):
        context = chromium.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: _is_own(asked.url) or complaints.append(asked.url))
        page.on(
            "console", lambda said: "Content Security" in said.text and complaints.append(said.text)
        )
        page.goto(served.url + path)
        page.wait_for_selector(".composer", state="attached")
        return page

    def _is_own(url):
        return url.startswith((served.url, "data:", "blob:"))

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
