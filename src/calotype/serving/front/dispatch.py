"""Images to engines and back: who is next, what engines say, and what becomes of those that end.

An image that was in an engine when it ended is a suspect: it is tried once more, with nothing else
in that engine, so that the second death tells which image it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from calotype.serving.front.engine import Engine
from calotype.serving.front.jobs import Job, Progress
from calotype.serving.front.observer import Observer
from calotype.serving.front.queue import FairQueue
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.speed import Speed, retry_seconds
from calotype.serving.front.unit import Unit
from calotype.serving.wire import LAST_WORDS, Message

MOST_DEATHS = 2
_PASSED_ON = {  # of what the engine says, what a client is told
    "step": ("stage", "resolution", "step", "steps", "done", "calls"),
    "preview": ("stage", "resolution", "step", "index", "final", "width", "height", "format"),
}


class Dispatcher:
    """The queue, the engines and what is in them.

    Args:
        settings: how much at once.
        progress: told of images that start and end.
        observer: told of engines and their calls.
    """

    def __init__(self, settings: ServeSettings, progress: Progress, observer: Observer) -> None:
        self.engines: list[Engine] = []
        self.speed = Speed()
        self.is_paused = False  # nothing new is started: the server goes down
        self._settings = settings
        self._progress = progress
        self._observer = observer
        self._queue: FairQueue[Unit] = FairQueue()
        self._suspects: deque[Unit] = deque()
        self._held: dict[str, Unit] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    @property
    def waiting(self) -> int:
        """Images that no engine has."""
        return len(self._queue) + len(self._suspects)

    @property
    def active(self) -> int:
        """Images that engines have."""
        return len(self._held)

    def has(self, job: Job) -> bool:
        """Whether an engine has an image of a job."""
        return any(unit.job is job for unit in self._held.values())

    def waiting_of(self, client: str) -> int:
        """Images of a client that no engine has."""
        suspects = sum(unit.job.owner.client == client for unit in self._suspects)
        return self._queue.waiting(client) + suspects

    def estimate(self) -> None:
        """Bring positions and ETA of all jobs up to date, as calls have gone since."""
        self._say_positions()

    def seconds_until(self, images: int) -> float:
        """When so many of the images that are here now will be gone, clamped for Retry-After."""
        costs = [self._cost(unit) for unit in (*self._held.values(), *self._queue.in_order())]
        return retry_seconds(sum(costs) / len(costs) * images if costs else 0.0)

    async def check(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of a request; as `Engine.check`."""
        ready = [one for one in self.engines if one.state == "ready"] or self.engines
        return await ready[0].check(head)

    def add(self, job: Job) -> None:
        """Queue the images of a job that are open."""
        job.warning = self._warning(job)
        for image in job.images:
            if image.is_open:
                self._queue.push(job.owner.client, Unit(job, image))
        self._dispatch()

    def stop(
        self, job: Job, *, interrupt: bool = False, reason: tuple[str, str] | None = None
    ) -> None:
        """End a job's images: those that wait at once, those in an engine within a step.

        Args:
            job: whose.
            interrupt: those in an engine are finished as they are now.
            reason: message and kind of the failure; None = they are cancelled.
        """
        mine = [u for u in (*self._suspects, *self._queue.in_order()) if u.job is job]
        for unit in mine:
            if unit in self._suspects:
                self._suspects.remove(unit)
            self._queue.remove(job.owner.client, unit)
            self._end(unit, reason)
        for unit in [u for u in self._held.values() if u.job is job]:
            assert unit.engine is not None
            unit.engine.send({"op": "interrupt" if interrupt else "cancel", "id": unit.image.id})
            if not interrupt:
                self._end(unit, reason)  # for the client; its place is free at the last word
        self._dispatch()

    def skip(self, job: Job) -> None:
        """Finish what of a job is in an engine as it is now; what waits goes on."""
        for unit in self._held.values():
            if unit.job is job and unit.engine is not None:
                unit.engine.send({"op": "interrupt", "id": unit.image.id})

    def forget(self, job: Job) -> None:
        """A job is over."""
        timer = self._deadlines.pop(job.id, None)
        if timer is not None:
            timer.cancel()

    def on_ready(self, engine: Engine) -> None:
        """As `Listener.on_ready`."""
        self._observer.engine_ready(engine)
        self._dispatch()

    def on_death(self, engine: Engine, reason: str, *, is_check: bool) -> None:
        """As `Listener.on_death`."""
        lost = [unit for unit in self._held.values() if unit.engine is engine]
        self._observer.engine_died(engine, reason, len(lost))
        for unit in lost:
            del self._held[unit.image.id]
            unit.engine = None
            image = unit.image
            if not image.is_open:
                continue
            image.deaths = max(image.deaths, 1) if is_check else image.deaths + 1
            if image.deaths >= MOST_DEATHS:
                message = f"the engine ended twice over this image ({reason}); change its settings"
                self._end(unit, (message, "internal"))
            else:
                image.state = "queued"
                image.fraction = 0.0
                self._suspects.append(unit)
        self._dispatch()

    def on_message(self, engine: Engine, message: Message) -> None:
        """As `Listener.on_message`."""
        head = message.head
        if message.op == "call":
            self.speed.observe(head["model"], head["resolution"], head["rows"], head["seconds"])
            self._observer.call(head)
        elif message.op == "stats":
            self._observer.stats(engine, head)
        unit = self._held.get(str(head.get("id", "")))
        if unit is None or unit.engine is not engine:
            return
        if message.op in LAST_WORDS:
            del self._held[unit.image.id]
            self._last_word(unit, message)
            self._dispatch()
        elif unit.image.is_open:
            self._news(unit, message)

    def _news(self, unit: Unit, message: Message) -> None:
        job, image, head = unit.job, unit.image, message.head
        if message.op == "admitted":
            image.state = "running"
            job.tell("started", {"image": image.index})
            return
        names = _PASSED_ON.get(message.op)
        if names is None:
            return
        data: dict[str, Any] = {"image": image.index, **{name: head.get(name) for name in names}}
        if message.op == "step":
            image.fraction = head["done"] / max(head["calls"], 1)
            data["progress"] = image.fraction
            self._observer.tracing.step(job, image, head["stage"], head["resolution"])
            job.tell("step", data)
        else:
            job.tell("preview", data, message.blobs[0])

    def _last_word(self, unit: Unit, message: Message) -> None:
        image, head = unit.image, message.head
        if not image.is_open:  # cancelled before, or past its deadline
            return
        if message.op == "image":
            image.recipe = head["recipe"]
            image.width, image.height = head["width"], head["height"]
            image.fraction = 1.0
            self._progress.on_end(unit.job, image, message.blobs[0])
        elif message.op == "failed":
            self._end(unit, (str(head["message"]), str(head["kind"])))
        else:
            self._end(unit, None)

    def _end(self, unit: Unit, reason: tuple[str, str] | None) -> None:
        if not unit.image.is_open:
            return
        unit.image.error = reason
        unit.image.state = "cancelled" if reason is None else "failed"
        self._progress.on_end(unit.job, unit.image, None)

    def _dispatch(self) -> None:
        """Give engines what they have room for, then tell who waits where they are."""
        while not self.is_paused and self._start_one():
            pass
        self._say_positions()
        self._observer.load(self.waiting, self.active)

    def _start_one(self) -> bool:
        load = Counter(id(unit.engine) for unit in self._held.values())
        alone = {id(u.engine) for u in self._held.values() if u.image.deaths}
        ready = [e for e in self.engines if e.state == "ready" and id(e) not in alone]
        engine = min(ready, key=lambda one: load[id(one)], default=None)
        if self._suspects and not alone and engine is not None:
            if not load[id(engine)]:
                self._start(self._suspects.popleft(), engine)
                return True
            if len(ready) == len(self.engines):  # none is about to come back empty: empty this one
                ready.remove(engine)
                engine = min(ready, key=lambda one: load[id(one)], default=None)
        if engine is None or load[id(engine)] >= self._settings.active:
            return False
        unit = self._queue.pop(unless=self._satisfied())
        if unit is None:
            return False
        self._start(unit, engine)
        return True

    def _satisfied(self) -> set[str]:
        """Clients that have so much in the engines that the last places are left to others."""
        places = self._settings.active * len(self.engines)
        most = max(places - max(places // 4, 1), 1)
        held = Counter(unit.job.owner.client for unit in self._held.values())
        return {client for client, count in held.items() if count >= most}

    def _start(self, unit: Unit, engine: Engine) -> None:
        job, image = unit.job, unit.image
        unit.engine = engine
        self._held[image.id] = unit
        image.starts += 1
        self._progress.on_start(job, image)
        if job.started is None:
            job.started = time.monotonic()
            seconds = self._settings.deadline
            reason = f"it took more than {seconds:g} s; ask for fewer or smaller images", "usage"
            self._deadlines[job.id] = asyncio.get_running_loop().call_later(
                seconds, lambda: self.stop(job, reason=reason)
            )
        engine.send(unit.start(), unit.blobs())

    def _cost(self, unit: Unit) -> float:
        return self.speed.image_seconds(unit.job.plan) * (1 - unit.image.fraction)

    def _warning(self, job: Job) -> str | None:
        """What is said where a job takes longer, as images come at present, than it may."""
        images = sum(image.is_open for image in job.images)
        seconds = self.speed.image_seconds(job.plan) * images / max(len(self.engines), 1)
        if seconds <= (most := self._settings.deadline):
            return None
        return (
            f"this takes about {seconds:,.0f} s as images come at present, and a job has {most:g} "
            "s from its first image's start: what is not done by then fails; ask for fewer or "
            "smaller images"
        )

    def _say_positions(self) -> None:
        seconds = sum(self._cost(unit) for unit in self._held.values())
        waiting: dict[str, tuple[Job, int]] = {}
        for unit in self._held.values():
            unit.job.position, unit.job.eta_seconds = None, seconds
        for place, unit in enumerate((*self._suspects, *self._queue.in_order())):
            seconds += self._cost(unit)
            unit.job.eta_seconds = seconds
            waiting.setdefault(unit.job.id, (unit.job, place))
        for job, place in waiting.values():
            if job.position != place:
                job.position = place
                job.tell("queued", {"position": place, "eta_seconds": job.eta_seconds})
