"""The web page: static files that speak the native API, made of plain modules without a build.

Nothing comes in but requests for files; nothing of `serving` is imported. `vendor/` holds Preact
and htm as npm has them (`vendored.json` says which and with which hashes).
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

FOLDER = Path(__file__).parent
_SHOWN = frozenset({"", ".html", ".css", ".js", ".svg"})


def mount(app: Starlette) -> None:
    """Serve the page at "/": after all other routes, which it would hide."""
    files = StaticFiles(directory=FOLDER, html=True)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def asked_for_anew(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-cache")]
            await send(message)

        if scope["type"] == "http" and Path(scope["path"]).suffix not in _SHOWN:
            scope = {**scope, "path": scope.get("root_path", "") + "/nothing-here"}
        await files(scope, receive, asked_for_anew)

    app.mount("/", page, name="page")
