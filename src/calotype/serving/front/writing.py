"""What is being written while nobody waits for it; errors that no disk explains are told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from calotype.serving.front.jobs import Job
from calotype.serving.front.observer import Observer


class Writing:
    """Work on behalf of jobs, on the loop that begins it.

    Args:
        observer: told of what fails.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        """Begin to write something of a job."""
        task = asyncio.ensure_future(self._told(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Wait until all that was begun is written."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _told(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # a defect of ours: the job goes on without its note
            self._observer.not_written(job, error)
