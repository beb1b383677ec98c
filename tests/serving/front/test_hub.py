"""Jobs through the hub and the fake engine: events, queue, cancelling, keys."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask, fingerprint
from calotype.serving.front.revive import Pixels


async def told(hub, job, after=0):
    return [event async for event in hub.events(job, after=after)]


def kinds(events):
    return [event.kind for event in events]


def restarts_of(hub):
    return sum(engine.restarts for engine in hub.work.engines)


def test_a_job_ends_with_its_images(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission(request={"n": 2, "size": (100, 60)}))
        events = await told(hub, job)
        return job, events

    job, events = with_hub(test)
    assert kinds(events)[-1] == "done" and kinds(events).count("image") == 2
    assert job.state == "done" and [image.seed for image in job.images] == [1, 2]
    for image in job.images:
        assert Image.open(io.BytesIO(image.data)).size == (100, 60)
        assert image.recipe["seed"] == image.seed


def test_a_refused_request_names_its_field(with_hub, submission) -> None:
    async def test(hub):
        with pytest.raises(ApiError) as found:
            await hub.submit(submission("refuse size"))
        return found.value

    error = with_hub(test)
    assert (error.status, error.param) == (400, "size") and not error.retry


def test_source_and_mask_reach_the_engine(with_hub, submission) -> None:
    import hashlib

    rgba, values = bytes(range(4 * 6)), b"\0\xff" * 3
    source = Pixels("s", 3, 2, rgba)

    async def test(hub):
        request = {"kind": "inpaint"}
        job = await hub.submit(
            submission(request=request, source=source, mask=Mask("m", 3, 2, values))
        )
        await told(hub, job)
        return job.images[0].recipe

    recipe = with_hub(test)
    assert recipe["blobs"] == [hashlib.sha256(one).hexdigest() for one in (rgba, values)]
    assert (recipe["source_sha256"], recipe["mask_sha256"]) == ("s", "m")


def test_one_image_does_not_wait_for_anothers_many(with_hub, submission) -> None:
    async def test(hub):
        many = await hub.submit(submission("slow", request={"n": 20}))
        one = await hub.submit(submission("slow", client="10.0.0.2"))
        await told(hub, one)
        return sum(image.state == "done" for image in many.images)

    assert with_hub(test, active=4) <= 8


def test_a_full_queue_says_when_to_come_back(with_hub, submission) -> None:
    async def test(hub):
        await hub.submit(submission("wait", request={"n": 32}))
        with pytest.raises(ApiError) as found:
            await hub.submit(submission("wait", request={"n": 32}))
        return found.value

    error = with_hub(test)
    assert error.status == 429 and 1 <= error.retry_after <= 120 and error.retry


def test_cancelling_frees_the_rows(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("wait", request={"n": 3}))
        async for event in hub.events(job):
            if event.kind == "step":
                hub.cancel(job)
        assert job.state == "cancelled"
        async with asyncio.timeout(2):
            while hub.work.active:
                await asyncio.sleep(0.01)
        return kinds(await told(hub, job))[-1]

    assert with_hub(test, active=2) == "cancelled"


def test_an_interrupted_job_keeps_what_it_has(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("wait"))
        async for event in hub.events(job):
            if event.kind == "step":
                hub.cancel(job, interrupt=True)
        return job

    job = with_hub(test)
    assert job.state == "done" and job.images[0].recipe["interrupted"]


def test_a_closed_connection_cancels_unless_the_job_outlives_it(with_hub, submission) -> None:
    async def test(hub):
        bound = await hub.submit(submission("wait"))
        free = await hub.submit(submission("wait", outlives=True))
        hub.release(bound)
        hub.release(free)
        return bound.state, free.is_over

    assert with_hub(test) == ("cancelled", False)


def test_a_repeated_key_joins_the_job(with_hub, submission) -> None:
    async def test(hub):
        same = [submission("a fox", idempotency_key="k") for _ in range(3)]
        jobs = await asyncio.gather(*map(hub.submit, same))
        jobs.append(await hub.submit(same[0]))
        assert len({job.id for job in jobs}) == 1 and jobs[0].holders == 4
        other = await hub.submit(submission(idempotency_key="k", api="openai"))
        assert other is not jobs[0]
        with pytest.raises(ApiError) as found:
            await hub.submit(submission("a cat", idempotency_key="k"))
        return found.value

    error = with_hub(test)
    assert (error.status, error.code) == (422, "idempotency_error")


def test_another_hole_of_one_mask_is_another_request(submission) -> None:
    one, same, inverted = (
        fingerprint(submission(mask=Mask("m", 1, 2, values)))
        for values in (b"\0\xff", b"\0\xff", b"\xff\0")
    )
    assert one == same != inverted


def test_a_refused_key_may_be_used_again(with_hub, submission) -> None:
    async def test(hub):
        for _ in range(2):
            with pytest.raises(ApiError, match="bad size"):
                await hub.submit(submission("refuse size", idempotency_key="l"))
        return await hub.submit(submission("a fox", idempotency_key="l"))

    assert with_hub(test).request.prompt == "a fox"


def test_a_clients_own_retry_joins_while_the_job_runs(with_hub, submission) -> None:
    async def test(hub):
        first = await hub.submit(submission("wait"))
        again = await hub.submit(submission("wait", is_retry=True))
        other = await hub.submit(submission("wait", is_retry=True, client="10.0.0.2"))
        hub.release(first)
        return first is again, first is other, first.is_over

    assert with_hub(test) == (True, False, False)


def test_a_retry_after_a_refusal_is_a_request_of_its_own(with_hub, submission) -> None:
    async def test(hub):
        running, waiting = [await hub.submit(submission("wait")) for _ in range(2)]
        with pytest.raises(ApiError, match="full"):
            await hub.submit(submission("wait"))
        hub.cancel(waiting)
        own = await hub.submit(submission("wait", is_retry=True))
        joined = await hub.submit(submission("wait", is_retry=True))
        return own in (running, waiting), joined in (running, own)

    assert with_hub(test, active=1, most_waiting=1) == (False, True)


def test_jobs_of_other_keys_are_not_there(with_hub, submission) -> None:
    from calotype.serving.front.jobs import Owner

    async def test(hub):
        ann, ben = Owner("ann", "1"), Owner("ben", "1")
        job = await hub.submit(submission(owner=ann))
        assert hub.get(job.id, ann) is job and hub.jobs(ann) == [job] and not hub.jobs(ben)
        with pytest.raises(ApiError) as found:
            hub.get(job.id, ben)
        return found.value.status

    assert with_hub(test) == 404


def test_a_late_reader_gets_what_counts(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission(previews="steps", preview_side=8))
        live = await told(hub, job)
        late = await told(hub, job)
        return live, late, await told(hub, job, after=late[-2].number)

    live, late, last = with_hub(test)
    assert kinds(late) == ["started", "step", "preview", "image", "done"]
    assert live[-1].number == late[-1].number and kinds(last) == ["done"]
    preview = next(event for event in late if event.kind == "preview")
    assert preview.data["step"] == 4 and preview.blob


@pytest.mark.parametrize("when", ["at start", "at step 2", "once"])
def test_an_engine_that_dies_is_replaced(with_hub, submission, when) -> None:
    async def test(hub):
        before = restarts_of(hub)
        bad = await hub.submit(submission(f"die {when}"))
        good = await hub.submit(submission("slow", client="10.0.0.2"))
        await asyncio.gather(told(hub, bad), told(hub, good))
        return bad, good, restarts_of(hub) - before

    bad, good, restarts = with_hub(test)
    assert good.state == "done" and good.images[0].deaths <= 1
    if when == "once":
        assert bad.state == "done" and restarts == 1
    else:
        assert bad.state == "failed" and "ended twice" in bad.images[0].error[0] and restarts == 2


def test_a_request_that_ends_engines_when_checked_harms_no_image(with_hub, submission) -> None:
    async def test(hub):
        before = restarts_of(hub)
        good = await hub.submit(submission("slow"))
        with pytest.raises(ApiError) as found:
            await hub.submit(submission("die in check", client="10.0.0.2"))
        await told(hub, good)
        return found.value.status, good.state, restarts_of(hub) - before

    assert with_hub(test) == (500, "done", 2)


def test_a_hanging_step_is_ended(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("hang once"))
        await told(hub, job)
        return job

    assert with_hub(test, step_timeout=0.5).state == "done"


def test_a_job_has_a_deadline(with_hub, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("wait"))
        await told(hub, job)
        return job

    job = with_hub(test, deadline=0.3)
    assert job.state == "failed" and "0.3 s" in job.images[0].error[0]


@pytest.mark.parametrize("kind", ["memory", "defect"])
def test_an_image_that_fails_fails_alone(with_hub, submission, kind) -> None:
    async def test(hub):
        bad = await hub.submit(submission(f"fail by {kind}"))
        good = await hub.submit(submission())
        return kinds(await told(hub, bad))[-1], kinds(await told(hub, good))[-1]

    assert with_hub(test) == ("failed", "done")
