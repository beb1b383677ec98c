"""Requests that are the same as one before: they join its job instead of making another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Job, Submission, fingerprint

_Key = tuple[str, str, str]
_MOST_REFUSED = 10_000


class Joining:
    """Jobs by the Idempotency-Key of whoever asked for them."""

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[str, asyncio.Future[Job]]] = {}
        self._refused: Counter[tuple[str, str]] = Counter()  # requests that will come again

    async def job(
        self, submission: Submission, make: Callable[[Submission], Awaitable[Job]]
    ) -> Job:
        """The job of a key, made now if it is the first with it.

        Raises:
            ApiError: 422, the key came with another body before; or as `make`, after which the
                key may be used again.
        """
        key, body = _key(submission), fingerprint(submission)
        while key in self._known:
            known, making = self._known[key]
            if known != body:
                message = "got an Idempotency-Key of before with another body; use a new key"
                raise ApiError(422, message, code="idempotency_error", param="Idempotency-Key")
            with suppress(ApiError):  # the first failed: this one is the first now
                return await asyncio.shield(making)
        made: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        made.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody looked
        self._known[key] = body, made
        try:
            job = await make(submission)
        except BaseException as error:
            del self._known[key]
            made.set_exception(error if isinstance(error, ApiError) else _given_up())
            raise
        made.set_result(job)
        return job

    async def unnamed(
        self, submission: Submission, same: Job | None, make: Callable[[Submission], Awaitable[Job]]
    ) -> Job:
        """The job of a request without a key.

        A client's own retry joins the running job that it repeats, `same`; but after a refusal
        there was none, and what is the same is another request's.

        Raises:
            ApiError: as `make`.
        """
        request = submission.owner.client, fingerprint(submission)
        if submission.is_retry:
            if same is not None and not self._refused[request]:
                return same
            self._refused -= Counter([request])
        try:
            return await make(submission)
        except ApiError as error:
            if error.retry:
                if len(self._refused) >= _MOST_REFUSED:
                    self._refused.clear()
                self._refused[request] += 1
            raise

    def revive(self, job: Job) -> None:
        """A job of an earlier server."""
        if job.submission.idempotency_key is not None:
            made: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
            made.set_result(job)
            self._known[_key(job.submission)] = job.body, made

    def forget(self, jobs: Collection[Job]) -> None:
        """Jobs that are remembered no more."""
        for job in jobs:
            if job.submission.idempotency_key is not None:
                self._known.pop(_key(job.submission), None)


def _key(submission: Submission) -> _Key:
    owner = submission.owner
    # Addresses change under a client on the way: without keys, keys are common property.
    return owner.key_name or "", submission.api, submission.idempotency_key or ""


def _given_up() -> ApiError:
    message = "the request that this one waited for was given up"
    return ApiError(503, message, code="given_up", retry=True)
