"""A guard before an application of a few lines, and keys in a folder."""

from __future__ import annotations

import pytest

ORIGIN = "http://127.0.0.1:8000"


async def _echo(request):
    """Every address: who asks, and how large the body was."""
    from starlette.responses import JSONResponse

    from calotype.serving.front.context import owner_of, request_id_of
    from calotype.serving.front.limits import FORM_LIMITS

    if request.headers.get("content-type", "").startswith("multipart/"):
        async with request.form(**FORM_LIMITS) as form:
            return JSONResponse({"fields": len(form.multi_items())})
    body = await request.body()
    if request.query_params.get("fail"):
        raise RuntimeError("/secret/path of Machinery")
    told = {"key": owner_of(request).key_name, "bytes": len(body), "id": request_id_of(request)}
    return JSONResponse(told)


@pytest.fixture
def small_app():
    """What `guarded` takes, without a hub."""
    from fastapi import FastAPI

    from calotype.serving.front.app import add_error_shapes
    from calotype.serving.front.links import Links

    methods = ["GET", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.links = Links()
    add_error_shapes(app)
    app.add_route("/{path:path}", _echo, methods)
    return app


@pytest.fixture
def guard(small_app, tmp_path):
    """Make a client of the small application behind its guard: `guard(allowed_hosts=("a",))`."""
    from starlette.testclient import TestClient

    from calotype.serving.front.guarded import guarded
    from calotype.serving.front.observer import Observer
    from calotype.serving.front.settings import ServeSettings

    def make(**settings):
        app = guarded(small_app, ServeSettings(**settings), Observer(), folder=tmp_path)
        return TestClient(
            app, base_url=ORIGIN, raise_server_exceptions=False, follow_redirects=False
        )

    return make


@pytest.fixture
def key(tmp_path):
    """A key named laptop."""
    from calotype.serving.front.keys import new_key

    return new_key(tmp_path, "laptop")


@pytest.fixture
def quick(monkeypatch):
    """Wrong keys wait a moment only."""
    from calotype.serving.front import authentication

    monkeypatch.setattr(authentication, "WRONG_KEY_SECONDS", 0.001)


@pytest.fixture
def guarded_port(small_app, tmp_path):
    """The port of a real server of the small application behind its guard."""
    import socket
    import threading

    import uvicorn

    from calotype.serving.front.connections import UVICORN
    from calotype.serving.front.guarded import guarded
    from calotype.serving.front.observer import Observer
    from calotype.serving.front.settings import ServeSettings

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = guarded(small_app, ServeSettings(port=port), Observer(), folder=tmp_path)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **UVICORN))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield port
        server.should_exit = True
        thread.join(20)
