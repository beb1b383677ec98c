"""What the server remembers of clients of this API: their models, and the tasks they have named."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakSet

from starlette.requests import Request

from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Job, Owner
from calotype.serving.sdapi.meaning import Served

API = "sdapi"
_MOST_CLIENTS = 10_000
_START_SECONDS = 2.0
_WATCHED_SECONDS = 600.0  # after a client has last asked for a preview


class Desk:
    """One a server; forgotten when it ends."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, str] = OrderedDict()
        self._watched: OrderedDict[str, float] = OrderedDict()
        self._tasks: dict[tuple[str | None, str], list[Job]] = {}
        self.interrupted: WeakSet[Job] = WeakSet()
        self.skipped: WeakSet[Job] = WeakSet()

    def choose(self, owner: Owner, model: str) -> None:
        """From now on a client's requests mean this model where they name none."""
        _put(self._models, owner.client, model)

    def chosen(self, owner: Owner) -> str | None:
        """What a client has chosen."""
        return self._models.get(owner.client)

    def watch(self, owner: Owner) -> None:
        """A client looks at previews."""
        _put(self._watched, owner.client, time.monotonic())

    def is_watched(self, owner: Owner) -> bool:
        """Whether a client has looked at previews of late, and so may look at the next ones."""
        since = self._watched.get(owner.client)
        return since is not None and time.monotonic() - since < _WATCHED_SECONDS

    @contextmanager
    def named(self, job: Job, task: str | None) -> Iterator[None]:
        """Let a job be found by the name that its client has given it."""
        if not task:
            yield
            return
        key = job.owner.key_name, task
        self._tasks.setdefault(key, []).append(job)
        try:
            yield
        finally:
            self._tasks[key].remove(job)
            if not self._tasks[key]:
                del self._tasks[key]

    def task(self, owner: Owner, task: str) -> list[Job]:
        """Open jobs of a name; a client without a key finds them from any address."""
        return list(self._tasks.get((owner.key_name, task), []))


def _put(of_clients: OrderedDict[str, Any], client: str, value: Any) -> None:
    """Remember something of a client; those that have said nothing for longest are forgotten."""
    of_clients[client] = value
    of_clients.move_to_end(client)
    while len(of_clients) > _MOST_CLIENTS:
        of_clients.popitem(last=False)


def desk_of(request: Request) -> Desk:
    """The server's desk."""
    return cast(Desk, request.app.state.desk)


def served(request: Request) -> Served:
    """What the server has for whoever asks.

    Raises:
        ApiError: 503, no engine has started yet.
    """
    settings = request.app.state.settings
    for engine in hub_of(request).work.engines:
        if engine.about:
            models = engine.about["models"]
            return Served(models, desk_of(request).chosen(owner_of(request)), settings.cfg)
    message = "the server is starting; ask again in a moment"
    raise ApiError(503, message, code="starting", retry_after=_START_SECONDS)


def open_jobs(request: Request, task: str | None = None) -> list[Job]:
    """The jobs that whoever asks has open here, oldest first; or those of the name that it says."""
    owner = owner_of(request)
    if task:
        found = desk_of(request).task(owner, task)
    else:
        mine = reversed(hub_of(request).jobs(owner))
        found = [job for job in mine if job.api == API and job.owner.client == owner.client]
    return [job for job in found if not job.is_over]
