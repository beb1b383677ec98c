"""The hub with its engine, from the server's start to its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from calotype.serving.front.engine import EngineProcess
from calotype.serving.front.hub import Hub
from calotype.serving.front.settings import ServeSettings


@asynccontextmanager
async def running_hub(settings: ServeSettings) -> AsyncIterator[Hub]:
    """A hub whose engine lives as long as the block."""
    hub = Hub(settings)
    command = settings.engine_command or _command(settings)
    engine = EngineProcess(command, hub.work, step_timeout=settings.step_timeout)
    hub.work.engines.append(engine)
    running = asyncio.create_task(engine.run())
    try:
        yield hub
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def _command(settings: ServeSettings) -> tuple[str, ...]:
    return sys.executable, "-m", "calotype.serving.engine"
