"""Which requests become jobs: those that can be fulfilled, while there is room."""

from __future__ import annotations

import secrets
from collections import Counter

from calotype.serving.front.decoded import check_room, count
from calotype.serving.front.dispatch import Dispatcher
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Job, JobImage, Submission, fingerprint
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.store import Store
from calotype.serving.job import MOST_RANDOM_SEED

GOING = "the server is going down; ask again in a moment"
_RESTART_SECONDS = 10.0


class Admission:
    """The way in; closed when the server goes down.

    Args:
        settings: how much may wait.
        work: the queue, and engines that check requests.
        store: where jobs are noted down; None = nowhere.
    """

    def __init__(self, settings: ServeSettings, work: Dispatcher, store: Store | None) -> None:
        self.is_closed = False
        self._settings = settings
        self._work = work
        self._store = store
        self._reserved: Counter[str] = Counter()  # images of clients whose check goes on

    async def job(self, submission: Submission) -> Job:
        """A job that is checked and noted down; the caller queues it at once.

        Raises:
            ApiError: as `Hub.submit`.
        """
        self._refuse_when_closed()
        request, client = submission.request, submission.owner.client
        self._refuse_when_full(client, request.n)
        if submission.source is not None:
            count(submission.source, submission.mask)
            check_room()
        self._reserved[client] += request.n
        try:
            source = submission.source
            head = {
                "request": request.model_dump(mode="json"),
                "source": None if source is None else [source.width, source.height],
                "mask": submission.mask is not None,
            }
            plan = await self._work.check(head)
            body = fingerprint(submission)
            job = Job(_token(), submission, _images(submission), plan, body=body)
            self._refuse_when_closed()
            if self._store is not None:
                await self._store.add(job)
            if self.is_closed:  # while the disk wrote: no later server is to make it
                for image in job.images:
                    image.state = "cancelled"
                if self._store is not None:
                    await self._store.end(job)
            self._refuse_when_closed()
        finally:
            self._reserved[client] -= request.n
        return job

    def _refuse_when_closed(self) -> None:
        if self.is_closed:
            raise ApiError(503, GOING, code="draining", retry_after=_RESTART_SECONDS)

    def _refuse_when_full(self, client: str, images: int) -> None:
        most, most_of_client = self._settings.most_waiting, self._settings.most_of_client
        of_client = self._work.waiting_of(client) + self._reserved[client] + images
        of_all = self._work.waiting + self._reserved.total() + images
        over = max(of_client - most_of_client, of_all - most)
        if over <= 0:
            return
        whose = f"{most_of_client} images of yours"
        if of_client <= most_of_client:
            whose = f"{most} images of all clients together"
        raise ApiError(
            429,
            f"the queue is full: {whose} may wait; ask again later",
            code="queue_full",
            retry_after=self._work.seconds_until(over),
        )


def _images(submission: Submission) -> list[JobImage]:
    request = submission.request
    seed = request.seed
    if seed is None:
        seed = secrets.randbelow(MOST_RANDOM_SEED + 2 - request.n)
    return [JobImage(_token(), index, seed + index, request.format) for index in range(request.n)]


def _token() -> str:
    return secrets.token_urlsafe(16)
