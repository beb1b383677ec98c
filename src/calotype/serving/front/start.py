"""The hub with its engine, from the server's start to its end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from calotype.serving.front.dispatch import Dispatcher
from calotype.serving.front.engine import EngineProcess
from calotype.serving.front.hub import Hub
from calotype.serving.front.observer import Observer
from calotype.serving.front.replicas import Replicas
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.store import NoRoom, Store

_NO_ROOM = (
    "the disk had no room for the database when the server started; make room on it, and start the "
    "server again"
)


def open_store(settings: ServeSettings) -> Store | None:
    """The store of a server; None = it has no folder, or one whose disk is too full to begin.

    Raises:
        Busy: another server has the folder.
        CalotypeError: it cannot be used.
    """
    if settings.data is None:
        return None
    try:
        return Store(settings.data, keep_bytes=settings.keep_bytes)
    except NoRoom:  # images are made and answered all the same; `running_hub` says so
        return None


@asynccontextmanager
async def running_hub(
    settings: ServeSettings, store: Store | None, observer: Observer | None = None
) -> AsyncIterator[Hub]:
    """A hub whose engine lives as long as the block; the store is closed at its end."""
    hub = Hub(settings, store, observer)
    if store is None and settings.data is not None:
        hub.observer.keeping(False, _NO_ROOM)
    tasks = [asyncio.create_task(_engines(settings, hub.work).run())]
    try:
        await hub.revive()
        tasks.append(asyncio.create_task(hub.clean()))
        yield hub
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await hub.written()
        if store is not None:
            await store.close()


def _engines(settings: ServeSettings, work: Dispatcher) -> EngineProcess | Replicas:
    """What computes: a child process, or replicas far away."""
    if settings.ray is not None:
        return Replicas(settings, settings.engine_command or _arguments(settings), work)
    command = settings.engine_command or (sys.executable, *_arguments(settings))
    engine = EngineProcess(command, work, step_timeout=settings.step_timeout)
    work.engines.append(engine)
    return engine


def _arguments(settings: ServeSettings) -> tuple[str, ...]:
    """What Python runs as the engine; its settings are JSON, None = its own."""
    names = ("models", "max_batch", "memory", "idle_unload", "device", "dtype", "threads",
             "metadata", "c2pa_cert", "c2pa_key")  # fmt: skip
    told = json.dumps({name: getattr(settings, name) for name in names}, default=str)
    return "-m", "calotype.serving.engine", "--settings", told
