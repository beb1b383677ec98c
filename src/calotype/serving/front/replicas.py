"""Engines on other machines: as many as the load asks for, between two numbers."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from calotype.errors import CalotypeError
from calotype.serving import wire
from calotype.serving.front.dispatch import Dispatcher
from calotype.serving.front.engine import Engine, EngineLink
from calotype.serving.front.sessions import Cluster
from calotype.serving.front.settings import ServeSettings

_LOOK_SECONDS = 1.0
_IDLE_SECONDS = 60.0  # that a replica is kept beyond what the load asks for
_REFUSED_SECONDS = 30.0  # until another is asked for in place of one that does not start


class ReplicaLink(EngineLink):
    """An engine in a replica; it gets nothing new once its replica is to stop."""

    _is_leaving = False

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._held and self._check is None

    def give_up(self) -> None:
        """There will never be an engine."""
        self.state = "stopped"
        self._ready.set()

    def _received(self, message: wire.Message) -> None:
        if message.op == "leaving":
            self._is_leaving = True
        else:
            super()._received(message)
        if self._is_leaving:
            self.state = "restarting"
            self._ready.clear()
            if self.is_idle:
                self.kill("its replica is stopped")

    def _died(self, reason: str) -> None:
        self._is_leaving = False
        super()._died(reason)


class Replicas:
    """Links to replicas; a `Listener` between them and the dispatcher.

    Args:
        settings: of the server.
        command: that starts an engine.
        work: whose engines they are.
    """

    def __init__(self, settings: ServeSettings, command: Sequence[str], work: Dispatcher) -> None:
        self._settings = settings
        self._work = work
        self._cluster = Cluster(settings, command)
        self._count = 0
        self._enough_since = time.monotonic()
        self._not_before = 0.0
        self._tasks: dict[ReplicaLink, asyncio.Task[None]] = {}
        self._first = self._new()
        work.engines.append(self._first)  # requests wait for it

    async def run(self) -> None:
        """Keep them alive until cancelled; returns early where none would start at all."""
        try:
            await asyncio.to_thread(self._cluster.open)
            _take_signals_back()
            self._start(self._first)
            while any(link.refusal is None for link in self._tasks):
                self._tend()
                await asyncio.sleep(_LOOK_SECONDS)
        except CalotypeError as error:
            print(f"calotype: {error}", file=sys.stderr)
        finally:
            self._first.give_up()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await asyncio.to_thread(self._cluster.close)

    def on_ready(self, engine: Engine) -> None:
        """It can be given work, from now on too if it is new."""
        if engine not in self._work.engines:
            self._work.engines.append(engine)
        self._work.on_ready(engine)

    def on_message(self, engine: Engine, message: wire.Message) -> None:
        """As `Listener.on_message`."""
        self._work.on_message(engine, message)

    def on_death(self, engine: Engine, reason: str, *, is_check: bool) -> None:
        """As `Listener.on_death`."""
        self._work.on_death(engine, reason, is_check=is_check)

    def _tend(self) -> None:
        now, (least, most) = time.monotonic(), self._settings.replicas
        for link in [one for one in self._tasks if one.refusal is not None]:
            self._not_before = now + _REFUSED_SECONDS
            if len(self._tasks) > 1:
                self._remove(link)
        images = self._work.waiting + self._work.active
        wanted = min(max(math.ceil(images / self._settings.active), least), most)
        if wanted >= len(self._tasks):
            self._enough_since = now
        while len(self._tasks) < wanted and now >= self._not_before:
            self._start(self._new())
        if now - self._enough_since > _IDLE_SECONDS:
            idle = [link for link in self._tasks if link.is_idle]
            if idle:
                self._remove(idle[-1])

    def _new(self) -> ReplicaLink:
        self._count += 1
        options: dict[str, Any] = {"step_timeout": self._settings.step_timeout}
        name = f"replica-{self._count}"
        return ReplicaLink(self._cluster.session, self, name=name, **options)

    def _start(self, link: ReplicaLink) -> None:
        self._tasks[link] = asyncio.create_task(link.run())

    def _remove(self, link: ReplicaLink) -> None:
        self._tasks.pop(link).cancel()
        if link in self._work.engines:
            self._work.engines.remove(link)
        if not self._work.engines:
            self._work.engines.append(next(iter(self._tasks)))


def _take_signals_back() -> None:
    """Ray's library puts handlers below Python's, which would end the server without a word."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.getsignal(number))
