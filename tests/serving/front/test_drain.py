"""Going down: who is answered when, and what the next server finds."""

from __future__ import annotations

import asyncio

import pytest

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Owner

NOBODY = Owner(None, "10.0.0.1")


async def last(hub, job):
    return [(event.kind, event.data.get("kind")) async for event in hub.events(job)][-1]


def test_what_waits_is_answered_at_once_and_what_runs_ends(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        running = await hub.submit(submission("slow", request={"steps": 20}, outlives=True))
        waiting = await hub.submit(submission("a cat", outlives=True))
        bound = await hub.submit(submission("a dog"))
        while not hub.work.has(running):
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(hub.drain())
        early = await asyncio.gather(last(hub, waiting), last(hub, bound))
        was_over = running.is_over
        with pytest.raises(ApiError) as found:
            await hub.submit(submission())
        assert found.value.status == 503 and found.value.retry_after
        late = await last(hub, running)
        await draining
        return (
            early,
            was_over,
            late,
            {job.id: job.submission.request.prompt for job in hub.jobs(NOBODY)},
        )

    early, was_over, late, names = with_hub(test, data=tmp_path, active=1, drain=20.0)
    assert early == [("failed", "shutdown")] * 2
    assert not was_over and late == ("done", None)

    async def after(hub):
        jobs = hub.jobs(NOBODY)
        kinds = await asyncio.gather(*(last(hub, job) for job in jobs))
        return {
            names[job.id]: (job.state, kind) for job, (kind, _) in zip(jobs, kinds, strict=True)
        }

    assert with_hub(after, data=tmp_path) == {
        "slow": ("done", "done"),
        "a cat": ("done", "done"),
        "a dog": ("interrupted", "failed"),
    }


def test_time_is_up_for_what_does_not_end(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("wait"))
        found = await asyncio.gather(last(hub, job), hub.drain())
        hub.release(job)
        return found[0]

    assert with_hub(test, drain=0.2) == ("failed", "shutdown")


def test_a_job_refused_at_the_last_moment_is_not_made_later(
    with_hub, submission, tmp_path, monkeypatch
) -> None:
    async def test(hub):
        add = hub.store.add

        async def slow_disk(job):
            await add(job)
            await hub.drain()

        monkeypatch.setattr(hub.store, "add", slow_disk)
        with pytest.raises(ApiError) as found:
            await hub.submit(submission(outlives=True))
        return found.value.status

    async def after(hub):
        return [job.state for job in hub.jobs(NOBODY)]

    assert with_hub(test, data=tmp_path) == 503
    assert with_hub(after, data=tmp_path) == ["cancelled"]
