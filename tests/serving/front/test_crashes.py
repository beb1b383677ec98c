"""Every fault at every point, amid images of other clients, whose clients only wait."""

from __future__ import annotations

import asyncio
import random

import pytest

from calotype.serving.front.errors import ApiError

pytestmark = pytest.mark.slow

STEPS = 4  # of the fake engine's base; at the fifth point an image is about to be encoded
FAULTS = ("die", "hang", "fail")


async def last(hub, job):
    return [event.kind async for event in hub.events(job)][-1]


@pytest.mark.parametrize("point", range(STEPS + 1))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_own_image_alone(with_hub, submission, fault, point) -> None:
    async def test(hub):
        asked = {
            "twice": submission(f"{fault} at step {point}", client="a"),
            "once": submission(f"{fault} once at step {point}", client="b"),
            "good": submission(client="c", request={"n": 3}),
        }
        jobs = {name: await hub.submit(one) for name, one in asked.items()}
        ends = await asyncio.gather(*(last(hub, job) for job in jobs.values()))
        kinds = [image.error[1] for image in jobs["twice"].images]
        return dict(zip(jobs, ends, strict=True)), kinds, hub.work.active, hub.work.waiting

    ends, kinds, active, waiting = with_hub(test, step_timeout=0.3)
    once = "failed" if fault == "fail" else "done"  # what memory did not hold is told at once
    assert ends == {"twice": "failed", "once": once, "good": "done"}
    assert kinds == ["memory" if fault == "fail" else "internal"]
    assert (active, waiting) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_clients_amid_all_faults(with_hub, submission, tmp_path, seed) -> None:
    chance = random.Random(seed)
    prompts = [
        f"{fault}{once} at step {point}"
        for fault in FAULTS
        for once in ("", " once")
        for point in range(STEPS + 1)
    ] + ["good"] * 20
    chance.shuffle(prompts)

    async def client(hub, number, prompt):
        await asyncio.sleep(chance.random())
        asked = submission(prompt, client=f"client {number % 7}", request={"n": 1 + number % 2})
        for left in (2, 1, 0):  # half a second's silence ends an engine: a busy machine's, too
            try:
                job = await hub.submit(asked)
                break
            except ApiError as error:
                if not (left and error.retry):
                    raise
        kind = await last(hub, job)
        hub.release(job)
        return kind

    async def test(hub):
        ends = await asyncio.gather(*(client(hub, *one) for one in enumerate(prompts)))
        return ends, hub.work.active, hub.work.waiting

    ends, active, waiting = with_hub(
        test, data=tmp_path, step_timeout=0.5, most_waiting=200, most_of_client=200
    )
    for prompt, kind in zip(prompts, ends, strict=True):
        if prompt.startswith("fail once"):
            assert kind in ("failed", "done")  # done, where another's death had it tried alone
        else:
            fails = prompt != "good" and "once" not in prompt
            assert kind == ("failed" if fails else "done"), prompt
    assert (active, waiting) == (0, 0)
