"""Images and engines, with engines of the test's own: a clock that turns as hypothesis says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.serving.front.dispatch import MOST_DEATHS, Dispatcher
from calotype.serving.front.jobs import Job, JobImage, Owner, Submission
from calotype.serving.front.observer import Observer
from calotype.serving.front.settings import ServeSettings
from calotype.serving.job import JobRequest
from calotype.serving.wire import Message


@dataclass(eq=False)
class Scripted:
    """An engine that does what the test tells it."""

    name: str = "engine"
    state: str = "ready"
    pid: int = 1
    restarts: int = 0
    about: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    async def check(self, head):
        raise NotImplementedError

    def send(self, head, blobs=()):
        if head["op"] == "start":
            self.held[head["id"]] = head
        else:
            self.asked.append((head["op"], head["id"]))


class Told:
    """What became of images."""

    def __init__(self):
        self.over = []

    def on_start(self, job, image):
        pass

    def on_end(self, job, image, data):
        if data is not None:
            image.state = "done"
        self.over.append(image.id)


def job_of(client, n, number, prompt=""):
    images = [JobImage(f"{client}{number}.{index}", index, index, "png") for index in range(n)]
    request = JobRequest(prompt=prompt, n=n, seed=0)
    return Job(
        f"{client}{number}", Submission(request=request, owner=Owner(client, ""), api="x"), images
    )


def finish(work, engine, image_id):
    engine.held.pop(image_id)
    head = {"op": "image", "id": image_id, "recipe": {}, "width": 1, "height": 1}
    work.on_message(engine, Message(head, (b"file",)))


def die(work, engine):
    engine.held.clear()
    engine.state = "restarting"
    work.on_death(engine, "killed", is_check=False)
    engine.state = "ready"
    work.on_ready(engine)


def started(told, engines=1, active=4):
    work = Dispatcher(ServeSettings(active=active), told, Observer())
    work.engines += [Scripted(f"e{number}") for number in range(engines)]
    return work


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "finish", "finish", "finish", "die", "stop"]),
        st.sampled_from("abc"),
        st.integers(0, 10),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(ACTS, st.sets(st.integers(0, 20), max_size=4), st.integers(1, 3))
def test_only_images_that_end_engines_fail(acts, bad, engines) -> None:
    """Whatever comes, goes and dies: each image ends once, and the innocent have their file."""

    async def run():
        told = Told()
        work = started(told, engines)
        jobs = []

        def ended_by_bad():
            def guilty():
                return [e for e in work.engines if any(number_of[one] in bad for one in e.held)]

            while engines_with_bad := guilty():
                die(work, engines_with_bad[0])

        number_of = {}

        def finish_any(number):
            held = [(engine, one) for engine in work.engines for one in engine.held]
            if held:
                engine, one = held[number % len(held)]
                finish(work, engine, one)

        stopped = set()
        for act, client, number in acts:
            if act == "add":
                job = job_of(client, number % 5 + 1, len(jobs))
                number_of |= {one.id: len(jobs) for one in job.images}
                jobs.append(job)
                work.add(job)
            elif act == "finish":
                finish_any(number)
            elif act == "stop" and jobs:
                job = jobs[number % len(jobs)]
                stopped.add(job.id)
                work.stop(job)
            ended_by_bad()
            for engine in work.engines:
                assert len(engine.held) <= 4
                alone = [one for one in engine.held.values() if one["alone"]]
                assert not alone or len(engine.held) == 1  # a suspect has the engine to itself
        while any(engine.held for engine in work.engines):
            finish_any(0)
            ended_by_bad()
        assert work.waiting == work.active == 0
        images = [(number, job, one) for number, job in enumerate(jobs) for one in job.images]
        assert sorted(told.over) == sorted(one.id for _, _, one in images)  # once each
        for number, job, one in images:
            if job.id in stopped:
                assert one.state in ("done", "failed", "cancelled")
            else:
                assert one.state == ("failed" if number in bad else "done")
            assert one.deaths <= MOST_DEATHS

    asyncio.run(run())


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_an_image_waits_for_no_more_than_its_turn(crowd, others, data) -> None:
    """However much one client has queued, another's image starts after at most one a client."""

    async def run():
        told = Told()
        work = started(told)
        (engine,) = work.engines
        for number in range(crowd):
            work.add(job_of("crowd", 32, number))
        for number in range(others):
            work.add(job_of(f"other{number}", 5, 0))
        work.add(job_of("me", 1, 0))
        ends = 0
        while "me0.0" not in engine.held and "me0.0" not in told.over:
            finish(work, engine, data.draw(st.sampled_from(sorted(engine.held))))
            ends += 1
        assert ends <= others + 2

    asyncio.run(run())


def run_with(test, **changes):
    async def inside():
        told = Told()
        work = started(told, **changes)
        return await test(work, told)

    return asyncio.run(inside())


def test_the_last_places_are_left_to_others() -> None:
    async def test(work, told):
        work.add(job_of("crowd", 20, 0))
        before = len(work.engines[0].held)
        work.add(job_of("me", 1, 0))
        return before, "me0.0" in work.engines[0].held

    assert run_with(test, active=8) == (6, True)


def test_suspects_have_an_engine_and_others_the_other() -> None:
    async def test(work, told):
        one, other = work.engines
        work.add(job_of("a", 4, 0))
        assert len(one.held) == len(other.held) == 2
        lost = set(one.held)
        die(work, one)
        work.add(job_of("b", 2, 0))
        assert len(one.held) == 1 and one.held.keys() <= lost  # alone
        assert {"b0.0", "b0.1"} <= other.held.keys()  # who only waits does not wait for them
        return [head["alone"] for head in (*one.held.values(), *other.held.values())]

    assert run_with(test, engines=2) == [True, False, False, False, False]


def test_an_engine_is_emptied_for_a_suspect() -> None:
    async def test(work, told):
        one, other = work.engines
        work.add(job_of("a", 2, 0))
        one.state = "restarting"
        one.held.clear()
        work.on_death(one, "killed", is_check=False)
        work.add(job_of("b", 3, 0))
        assert len(other.held) == 3 and not one.held  # `one` will come back empty
        one.state = "ready"
        work.on_ready(one)
        return next(iter(one.held.values()))["alone"], len(one.held)

    assert run_with(test, engines=2, active=3) == (True, 1)


def test_a_cancelled_images_place_is_free_at_the_engines_last_word() -> None:
    async def test(work, told):
        (engine,) = work.engines
        job = job_of("a", 1, 0)
        work.add(job)
        work.stop(job)
        assert told.over == ["a0.0"] and engine.asked == [("cancel", "a0.0")]
        assert work.active == 1
        finish(work, engine, "a0.0")  # too late: nobody is told
        return job.images[0].state, work.active, told.over

    assert run_with(test) == ("cancelled", 0, ["a0.0"])


def test_an_engine_that_dies_over_what_was_cancelled_starts_it_no_more() -> None:
    async def test(work, told):
        (engine,) = work.engines
        job = job_of("a", 1, 0)
        work.add(job)
        work.stop(job)
        die(work, engine)
        return engine.held, job.images[0].state

    assert run_with(test) == ({}, "cancelled")


def test_positions_and_eta_are_told_as_the_queue_moves() -> None:
    async def test(work, told):
        (engine,) = work.engines
        plan = {"model": "m", "stages": [{"resolution": 64, "steps": 4}], "calls": 8}
        jobs = [job_of("a", 1, number) for number in range(4)]
        for job in jobs:
            job.plan = plan
        work.on_message(
            engine,
            Message({"op": "call", "model": "m", "resolution": 64, "rows": 2, "seconds": 0.5}),
        )
        for job in jobs:
            work.add(job)
        seen = [(job.position, job.eta_seconds) for job in jobs]
        step = {"op": "step", "id": "a0.0", "stage": 0, "resolution": 64, "done": 4, "calls": 8}
        work.on_message(engine, Message({"op": "admitted", "id": "a0.0"}))
        work.on_message(engine, Message(step))
        work.estimate()
        assert [job.eta_seconds for job in jobs] == [1.0, 3.0, 5.0, 7.0]  # half of it is done
        finish(work, engine, "a0.0")
        return seen, [event.data["position"] for event in jobs[2].events.values()]

    seen, places = run_with(test, active=1)
    assert seen == [(None, 2.0), (0, 4.0), (1, 6.0), (2, 8.0)]
    assert places == [0]  # what was told before is told no more


def test_the_deadline_begins_with_the_first_image() -> None:
    async def test(work, told):
        work._settings = ServeSettings(active=1, deadline=0.05)
        first, second = job_of("a", 2, 0), job_of("b", 1, 0)
        work.add(first)
        work.add(second)
        await asyncio.sleep(0.1)
        assert [one.state for one in first.images] == ["failed", "failed"]
        assert second.images[0].is_open  # it has not begun
        return first.images[0].error

    message, kind = run_with(test, active=1)
    assert "0.05 s" in message and kind == "usage"


@pytest.mark.parametrize(
    ("images", "engines", "warned"), [(3, 1, None), (4, 1, "400 s"), (6, 2, None), (7, 2, "350 s")]
)
def test_a_job_that_cannot_be_done_in_its_time_is_warned_of(images, engines, warned) -> None:
    async def test(work, told):
        work.engines = work.engines * engines
        job = job_of("a", images, 0)
        unknown = job_of("b", 32, 0)
        work.add(unknown)
        assert unknown.warning is None  # nothing was measured
        job.plan = {"model": "m", "stages": [{"resolution": 64, "steps": 4}], "calls": 4}
        call = {"op": "call", "model": "m", "resolution": 64, "rows": 2, "seconds": 50.0}
        work.on_message(work.engines[0], Message(call))
        work.add(job)
        return job.warning

    found = run_with(test)
    assert found is None if warned is None else f"about {warned}" in found and "has 300 s" in found


@pytest.mark.parametrize(("images", "expected"), [(1, 2.0), (100, 120.0)])
def test_retry_after_grows_with_what_is_before(images, expected) -> None:
    async def test(work, told):
        assert work.seconds_until(5) == 1.0  # nothing is there: at once
        work.add(job_of("a", 2, 0))
        return work.seconds_until(images)

    assert run_with(test) == expected
