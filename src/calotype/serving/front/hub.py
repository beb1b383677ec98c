"""The hub: every API's jobs come in here, and what happens to them goes out as events.

All on one event loop, so there are no locks; what waits for the disk or an engine is awaited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from calotype.serving.front.admission import GOING, Admission
from calotype.serving.front.decoded import count
from calotype.serving.front.dispatch import Dispatcher
from calotype.serving.front.errors import not_found
from calotype.serving.front.jobs import (
    LAST_EVENTS,
    Event,
    Job,
    JobImage,
    Owner,
    Submission,
    fingerprint,
)
from calotype.serving.front.joining import Joining
from calotype.serving.front.memory import REMEMBERED_SECONDS, Memory
from calotype.serving.front.observer import Observer
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.store import UNDO_SECONDS, Store
from calotype.serving.front.writing import Writing

_CLEAN_SECONDS = 10.0


@dataclass(frozen=True)
class File:
    """An image's file, and what it is: "png", "jpeg" or "webp"."""

    format: str
    data: bytes = field(repr=False)


class Hub:
    """Jobs, from `submit` to their last event.

    Args:
        settings: how much at once, and for how long.
        store: where images are kept and jobs noted down; None = in memory alone.
        observer: told what happens; None = one that nobody asks.
    """

    def __init__(
        self,
        settings: ServeSettings,
        store: Store | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.observer = Observer() if observer is None else observer
        self.work = Dispatcher(settings, self, self.observer)
        if store is not None:
            store.on_change = self.observer.keeping
        self._admission = Admission(settings, self.work, store)
        self._memory = Memory()
        self._joining = Joining()
        self._writing = Writing(self.observer)

    @property
    def is_draining(self) -> bool:
        """Whether new work is refused, because the server goes down."""
        return self._admission.is_closed

    async def submit(self, submission: Submission) -> Job:
        """Check and queue a job; or join the one that has its key.

        The caller holds it until `release`.

        Raises:
            ApiError: 400 where the request cannot be fulfilled, 422 for a key with another body,
                429 where the queue is full, 503 where the server goes down.
        """
        if submission.idempotency_key is None:
            same = self._same(submission) if submission.is_retry else None
            job = await self._joining.unnamed(submission, same, self._new)
        else:
            job = await self._joining.job(submission, self._new)
        job.holders += 1
        return job

    def release(self, job: Job) -> None:
        """A connection that held a job has closed: the last one cancels what outlives none."""
        job.holders -= 1
        if job.holders > 0 or job.outlives:
            return
        if not job.is_over:
            self.cancel(job)
        if not job.submission.fetched_later:
            self._memory.forget(job)

    def get(self, job_id: str, owner: Owner) -> Job:
        """A job of this owner.

        Raises:
            ApiError: 404, also where it is another key's.
        """
        job = self._memory.get(job_id)
        if job is None or job.owner.key_name != owner.key_name:
            raise not_found("job")
        self.work.estimate()
        return job

    def jobs(self, owner: Owner) -> list[Job]:
        """Jobs of this owner, newest first."""
        self.work.estimate()
        mine = [job for job in self._memory.jobs() if job.owner.key_name == owner.key_name]
        return mine[::-1]

    def image(self, image_id: str, owner: Owner) -> tuple[Job, JobImage] | None:
        """A finished image of this owner's that is in memory alone, with its job."""
        found = self._memory.image(image_id)
        if found is None or found[0].owner.key_name != owner.key_name:
            return None
        return found if found[1].data is not None and not found[1].kept else None

    async def file(self, image_id: str, owner: Owner) -> File:
        """The file of a finished image, from memory or from the store.

        Raises:
            ApiError: 404, also where it is another key's, or was deleted.
        """
        found = self.image(image_id, owner)
        if found is not None:
            return File(found[1].format, found[1].data or b"")
        if self.store is not None:
            kept = await self.store.find(image_id, owner.key_name)
            data = None if kept is None else await self.store.read(kept)
            if kept is not None and data is not None:
                return File(kept.format, data)
        raise not_found("image")

    def cancel(self, job: Job, *, interrupt: bool = False) -> None:
        """End a job: what waits at once, what is computed within a step.

        Args:
            job: which.
            interrupt: what is computed is finished as it is now, not thrown away.
        """
        self.work.stop(job, interrupt=interrupt)

    async def events(self, job: Job, *, after: int = 0) -> AsyncIterator[Event]:
        """What has happened after event number `after`, then what happens, to the job's end.

        A reader that is slower than the job misses steps and previews, never an image.
        """
        if after > job.last_number:  # numbers of an earlier server
            after = 0
        news = asyncio.Event()
        job.changed.add(news)
        try:
            while True:
                news.clear()
                event = next((one for one in job.events.values() if one.number > after), None)
                if event is not None:
                    after = event.number
                    yield event
                    if event.kind in LAST_EVENTS:
                        return
                elif job.is_over:
                    return
                else:
                    await news.wait()
        finally:
            job.changed.discard(news)

    async def revive(self) -> None:
        """Take up the jobs of earlier servers."""
        if self.store is None:
            return
        for job in await self.store.revive(time.time()):
            self._memory.add(job)
            self._joining.revive(job)
            count(job.submission.source, job.submission.mask)
            for image in job.images:
                if image.state == "done":
                    job.tell("image", image.facts)
            if job.is_over:
                self._tell_end(job)
            else:
                self.work.add(job)

    async def clean(self) -> None:
        """Forget what is over, and remove what was deleted; for ever, now and then."""
        while True:
            self._joining.forget(self._memory.forget_old())
            if self.store is not None:
                now = time.time()
                await self.store.clean(now - REMEMBERED_SECONDS, hidden_before=now - UNDO_SECONDS)
            await asyncio.sleep(_CLEAN_SECONDS)

    async def drain(self) -> None:
        """Take no more work, let what runs end in its time; streams end with their job or then.

        What was not finished and outlives its client goes on when the store is opened again.
        """
        self._admission.is_closed = True
        self.work.is_paused = True
        for job in self._memory.jobs():
            if not job.is_over and not self.work.has(job):  # it will not begin any more
                self._leave(job)
        until = time.monotonic() + self.settings.drain
        while self.work.active and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self.written()
        for job in self._memory.jobs():
            if not job.is_over:
                self._leave(job)

    async def written(self) -> None:
        """Wait for the disk to have all that it was given."""
        await self._writing.done()

    def on_start(self, job: Job, image: JobImage) -> None:
        """As `Progress.on_start`."""
        self.observer.started(job, image)
        if self.store is not None:
            self._writing.begin(job, self.store.starts(image))

    def on_end(self, job: Job, image: JobImage, data: bytes | None) -> None:
        """As `Progress.on_end`: with a file it is done, else its state says what it is."""
        keep = {"all": True, "none": False, "page": job.api == "native"}[self.settings.keep]
        if data is not None and self.store is not None and keep:
            self._writing.begin(job, self._keep(self.store, job, image, data))
        else:
            self._over(job, image, data)

    async def _keep(self, store: Store, job: Job, image: JobImage, data: bytes) -> None:
        try:
            image.kept = await store.keep(job, image, data)
        finally:  # whatever fails: whoever asked gets it
            self._over(job, image, data)

    def _over(self, job: Job, image: JobImage, data: bytes | None) -> None:
        if data is not None:
            image.data, image.state = data, "done"
            job.tell("image", image.facts, data)
        self.observer.image_over(job, image)
        if job.is_over or any(one.is_open for one in job.images):
            return
        job.ended = time.time()
        job.submission = replace(job.submission, source=None, mask=None)  # which may be large
        self.work.forget(job)
        self.observer.job_over(job)
        self._tell_end(job)
        if self.store is not None:
            self._writing.begin(job, self.store.end(job))

    def _leave(self, job: Job) -> None:
        """Tell listeners that the server goes; in the store the job is not over."""
        job.ended = time.time()
        job.tell("failed", {"message": GOING, "kind": "shutdown", "errors": []})

    def _tell_end(self, job: Job) -> None:
        errors = [
            {"image": image.index, "message": image.error[0], "kind": image.error[1]}
            for image in job.images
            if image.error is not None
        ]
        if errors:
            first = {"message": errors[0]["message"], "kind": errors[0]["kind"]}
            job.tell("failed", {**first, "errors": errors})
        else:
            job.tell("cancelled" if job.state == "cancelled" else "done", {})

    def _same(self, submission: Submission) -> Job | None:
        """The job of an identical request of the same client that is not over."""
        body, client = fingerprint(submission), submission.owner.client
        return next(
            (
                job
                for job in self.jobs(submission.owner)
                if not job.is_over and job.body == body and job.owner.client == client
            ),
            None,
        )

    async def _new(self, submission: Submission) -> Job:
        job = await self._admission.job(submission)
        self.observer.queued(job)
        if self._memory.is_crowded:
            self._joining.forget(self._memory.forget_old())
        self._memory.add(job)
        self.work.add(job)
        return job
