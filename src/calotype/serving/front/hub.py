"""The hub: every API's jobs come in here, and what happens to them goes out as events.

All on one event loop, so there are no locks; what waits for the disk or an engine is awaited.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from calotype.serving.front.dispatch import Dispatcher
from calotype.serving.front.errors import ApiError, not_found
from calotype.serving.front.jobs import (
    LAST_EVENTS,
    Event,
    Job,
    JobImage,
    Owner,
    Submission,
)
from calotype.serving.front.settings import ServeSettings
from calotype.serving.job import MOST_RANDOM_SEED

_REMEMBERED_SECONDS = 3600.0
_RESTART_SECONDS = 10.0
_GOING = "the server is going down; ask again in a moment"


class Hub:
    """Jobs, from `submit` to their last event.

    Args:
        settings: how much at once, and for how long.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.is_draining = False
        self.work = Dispatcher(settings, self._image_over)
        self._jobs: dict[str, Job] = {}  # oldest first
        self._keys: dict[tuple[str, ...], tuple[str, asyncio.Future[Job]]] = {}
        self._reserved: Counter[str] = Counter()  # images of clients whose check goes on

    async def submit(self, submission: Submission) -> Job:
        """Check and queue a job; or join the one that has its key.

        The caller holds it until `release`.

        Raises:
            ApiError: 400 where the request cannot be fulfilled, 422 for a key with another body,
                429 where the queue is full, 503 where the server goes down.
        """
        if submission.idempotency_key is None:
            job = self._same(submission) if submission.is_retry else None
            job = job or await self._new(submission)
        else:
            job = await self._keyed(submission)
        job.holders += 1
        return job

    def release(self, job: Job) -> None:
        """A connection that held a job has closed: the last one cancels what outlives none."""
        job.holders -= 1
        if job.holders <= 0 and not job.outlives and not job.is_over:
            self.cancel(job)

    def get(self, job_id: str, owner: Owner) -> Job:
        """A job of this owner.

        Raises:
            ApiError: 404, also where it is another key's.
        """
        job = self._jobs.get(job_id)
        if job is None or job.owner.key_name != owner.key_name:
            raise not_found("job")
        return job

    def jobs(self, owner: Owner) -> list[Job]:
        """Jobs of this owner, newest first."""
        mine = [job for job in self._jobs.values() if job.owner.key_name == owner.key_name]
        return mine[::-1]

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

    async def drain(self) -> None:
        """Take no more work, let what runs end in its time, then end every stream."""
        self.is_draining = True
        self.work.is_paused = True
        until = time.monotonic() + self.settings.drain
        while self.work.active and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for job in self._jobs.values():
            if not job.is_over:
                job.ended = time.time()
                job.tell("failed", {"message": _GOING, "kind": "shutdown", "errors": []})

    async def _keyed(self, submission: Submission) -> Job:
        owner = submission.owner.key_name or submission.owner.client
        key = (owner, submission.api, submission.idempotency_key or "")
        body = _fingerprint(submission)
        while key in self._keys:
            known, making = self._keys[key]
            if known != body:
                message = "got an Idempotency-Key of before with another body; use a new key"
                raise ApiError(422, message, code="idempotency_error", param="Idempotency-Key")
            with suppress(ApiError):  # the first with this key failed: this one may not
                return await asyncio.shield(making)
            await asyncio.sleep(0)
        made: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        made.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen
        self._keys[key] = body, made
        try:
            job = await self._new(submission)
        except BaseException as error:
            del self._keys[key]
            known_error = error if isinstance(error, ApiError) else _gone()
            made.set_exception(known_error)
            raise
        made.set_result(job)
        return job

    def _same(self, submission: Submission) -> Job | None:
        """The job of an identical request that is not over."""
        body = _fingerprint(submission)
        return next(
            (
                job
                for job in self.jobs(submission.owner)
                if not job.is_over
                and job.owner.client == submission.owner.client
                and _fingerprint(job.submission) == body
            ),
            None,
        )

    async def _new(self, submission: Submission) -> Job:
        if self.is_draining:
            raise ApiError(503, _GOING, code="draining", retry_after=_RESTART_SECONDS)
        request, client = submission.request, submission.owner.client
        self._check_room(client, request.n)
        self._reserved[client] += request.n
        try:
            source = submission.source
            plan = await self._engine_check(
                {
                    "request": request.model_dump(mode="json"),
                    "source": None if source is None else [source.width, source.height],
                    "mask": submission.mask is not None,
                }
            )
            if self.is_draining:
                raise ApiError(503, _GOING, code="draining", retry_after=_RESTART_SECONDS)
            job = Job(_token(), submission, _images(submission), plan)
        finally:
            self._reserved[client] -= request.n
        self._forget_old()
        self._jobs[job.id] = job
        self.work.add(job)
        return job

    async def _engine_check(self, head: dict[str, Any]) -> dict[str, Any]:
        engines = self.work.engines
        ready = [one for one in engines if one.state == "ready"] or engines
        return await ready[0].check(head)

    def _check_room(self, client: str, images: int) -> None:
        """Refuse what the queue has no room for."""
        limits = self.settings
        of_client = self.work.waiting_of(client) + self._reserved[client] + images
        of_all = self.work.waiting + self._reserved.total() + images
        over = max(of_client - limits.most_of_client, of_all - limits.most_waiting)
        if over > 0:
            whose = "yours" if of_client > limits.most_of_client else "all clients together"
            most = min(limits.most_of_client, limits.most_waiting)
            raise ApiError(
                429,
                f"the queue is full: {most if whose == 'yours' else limits.most_waiting} images "
                f"of {whose} may wait; ask again later",
                code="queue_full",
                retry_after=self.work.seconds_until(over),
            )

    def _image_over(self, job: Job, image: JobImage, data: bytes | None) -> None:
        """An image came to its end: with a file it is done, else its state says what it is."""
        if data is not None:
            image.data = data
            image.state = "done"
            told = {"image": image.index, "id": image.id, "seed": image.seed}
            told |= {"width": image.width, "height": image.height, "format": image.format}
            job.tell("image", told, data)
        self._end_if_over(job)

    def _end_if_over(self, job: Job) -> None:
        if job.is_over or any(image.is_open for image in job.images):
            return
        job.ended = time.time()
        self.work.forget(job)
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

    def _forget_old(self) -> None:
        """Jobs that were over long ago."""
        before = time.time() - _REMEMBERED_SECONDS
        gone = [job for job in self._jobs.values() if job.ended and job.ended < before]
        for job in gone:
            del self._jobs[job.id]
        lost = {job.id for job in gone}
        self._keys = {
            key: (body, made)
            for key, (body, made) in self._keys.items()
            if not (made.done() and made.exception() is None and made.result().id in lost)
        }


def _images(submission: Submission) -> list[JobImage]:
    request = submission.request
    seed = request.seed
    if seed is None:
        seed = secrets.randbelow(MOST_RANDOM_SEED + 2 - request.n)
    return [JobImage(_token(), index, seed + index, request.format) for index in range(request.n)]


def _fingerprint(submission: Submission) -> str:
    """What two requests have in common that are the same."""
    source, mask = submission.source, submission.mask
    parts = [
        submission.api,
        submission.request.model_dump(mode="json"),
        None if source is None else source.sha256,
        None if mask is None else mask.sha256,
        submission.previews,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _token() -> str:
    return secrets.token_urlsafe(16)


def _gone() -> ApiError:
    return ApiError(
        503, "the request that this one waited for was given up", code="gone", retry=True
    )
