"""Clients of the native API."""

from __future__ import annotations

import httpx
import pytest


@pytest.fixture(scope="module")
def api(served):
    """A client of the module's server."""
    with httpx.Client(base_url=served, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def keeping(tmp_path_factory, fake, serve_at):
    """A client of a server that keeps images; and the folder they are in."""
    folder = tmp_path_factory.mktemp("data")
    with serve_at(fake(data=folder)) as (address, _):
        with httpx.Client(base_url=address, timeout=20) as client:
            yield client, folder


@pytest.fixture
def by_key(tmp_path, fake):
    """A client of a server with keys: the header x-test-key says whose a request is."""
    from starlette.testclient import TestClient

    from calotype.serving.front.app import build_app
    from calotype.serving.front.context import KEY_NAME

    app = build_app(fake(data=tmp_path))

    async def keyed(scope, receive, send):
        names = [
            value.decode() for name, value in scope.get("headers", ()) if name == b"x-test-key"
        ]
        await app({**scope, KEY_NAME: names[0] if names else None}, receive, send)

    with TestClient(keyed, base_url="http://127.0.0.1:8000") as client:
        yield client
