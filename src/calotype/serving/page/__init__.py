"""The web page: static files that speak the native API, made of plain modules without a build.

Nothing comes in but requests for files; nothing of `serving` is imported. `vendor/` holds Preact
and htm as npm has them (`vendored.json` says which and with which hashes).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

FOLDER = Path(__file__).parent
_SHOWN = frozenset({".html", ".css", ".js", ".svg"})
_AT_ROOT, _BELOW = SimpleNamespace(path="/"), SimpleNamespace(path="/page")
"""What metrics and logs call the routes of the page: all its files are one."""
_CACHING = "no-cache"  # browsers ask whether a file is still the same: an update is seen at once


def mount(app: Starlette) -> None:
    """Serve the page at "/", and its files below "/page"."""
    files = StaticFiles(directory=FOLDER)

    async def page(request: Request) -> Response:
        request.scope["route"] = _AT_ROOT
        response: Response = await files.get_response("index.html", request.scope)
        response.headers["Cache-Control"] = _CACHING
        return response

    async def file(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_caching(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (b"cache-control", _CACHING.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        scope["route"] = _BELOW
        if Path(scope["path"]).suffix not in _SHOWN:
            scope = {**scope, "path": scope.get("root_path", "") + "/nothing-here"}
        await files(scope, receive, with_caching)

    app.add_route("/", page, methods=["GET"], include_in_schema=False)
    app.mount("/page", file, name="page")
