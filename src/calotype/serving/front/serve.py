"""Serving until SIGTERM or Ctrl-C: the first lets work end in its time, the second ends at once."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from calotype.errors import CalotypeError
from calotype.serving.front.access import access_of, check_exposure
from calotype.serving.front.app import build_app
from calotype.serving.front.connections import UVICORN, allow_many_files
from calotype.serving.front.guarded import guarded
from calotype.serving.front.hub import Hub
from calotype.serving.front.keys import Keys
from calotype.serving.front.logs import log_libraries, make_log
from calotype.serving.front.observer import Observer
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.start import open_store
from calotype.serving.front.tracing import export_traces
from calotype.web.addresses import listen
from calotype.web.asgi import App

_CLOSE_SECONDS = 3  # that connections have after the last stream has ended
_LOOK_SECONDS = 0.02


def serve(settings: ServeSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is told to end.

    Args:
        settings: see `ServeSettings`; port 0 takes a free one.
        on_ready: told the server's address once it answers and its engine can work.

    Raises:
        UsageError: another server has the data folder, or others could reach it without a key.
        CalotypeError: the port is taken, the folder cannot be used, or the engine does not start.
    """
    allow_many_files()
    check_exposure(settings, has_keys=Keys(settings.data).needed)
    export_traces()
    store = open_store(settings)
    try:
        listening = listen(settings.host, settings.port)
    except BaseException:
        if store is not None:
            asyncio.run(store.close())
        raise
    with listening:
        port = listening.getsockname()[1]
        log_libraries(sys.stderr)
        observer = Observer(make_log(sys.stderr), log_prompts=settings.log_prompts)
        settings = dataclasses.replace(settings, port=port)
        app = build_app(settings, store, observer)
        site = guarded(app, settings, observer, folder=settings.data)
        address = access_of(settings).origins[0]
        _Server(site, app, lambda: on_ready(address)).run_on(listening)


class _Server(uvicorn.Server):
    """Uvicorn, but signals drain the hub before the server stops to listen."""

    def __init__(self, site: App, app: FastAPI, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            site,
            **UVICORN,
            log_config=None,
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_told = False
        self._failure: str | None = None

    def run_on(self, listening: socket.socket) -> None:
        """Serve; ends when all is drained.

        Raises:
            CalotypeError: it does not start, or its engine does not.
        """
        asyncio.run(self.serve([listening]))
        if self._failure is not None:
            raise CalotypeError(self._failure)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so once the engine can work."""
        self._loop = asyncio.get_running_loop()
        with suppress(SystemExit):  # what was to start with it has failed, and is in the log
            await super().startup(sockets)
        if self.started:
            self._begin(self._announce())
        else:
            self._failure = "the server does not start; the lines above say why"
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C; runs between any two instructions of the loop's thread."""
        if self._is_told:
            os.write(2, b"calotype: interrupted\n")
            os._exit(128 + sig)  # the engine ends with its pipe, and the store bears it
        self._is_told = True
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(lambda: self._begin(self._drain()))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _announce(self) -> None:
        hub = cast(Hub, self._app.state.hub)
        while not self._is_told:
            engines = hub.work.engines
            if any(one.state == "ready" for one in engines):
                self._on_ready()
                return
            if engines and all(one.state == "stopped" for one in engines):
                self._failure = "the engine does not start; the lines above say why"
                self.should_exit = True
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _drain(self) -> None:
        if hasattr(self._app.state, "hub"):  # else it has not begun to work
            await cast(Hub, self._app.state.hub).drain()
        self.should_exit = True
