"""A replica without Ray: frames both ways, leases, and ends that leave nothing running."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from contextlib import aclosing, suppress

import pytest

from calotype.serving import replica as module
from calotype.serving import wire
from calotype.serving.job import JobRequest
from calotype.serving.replica import Replica

pytestmark = pytest.mark.slow

START = {
    "op": "start",
    "seed": 3,
    "source": None,
    "mask": None,
    "source_sha256": None,
    "mask_sha256": None,
    "previews": "none",
    "alone": False,
}


class Inbox(asyncio.Queue):
    """As Ray's queue."""

    async def get_async(self):
        item = await self.get()
        if isinstance(item, Exception):
            raise item
        return item

    def say(self, **head):
        self.put_nowait(b"".join(wire.encode(head)))

    def start(self, number, prompt="a fox"):
        request = JobRequest(prompt=prompt).model_dump(mode="json")
        self.say(**START, id=number, request=request)


def is_alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def starting(inbox, replica):
    """All is well while the engine starts, however busy the machine is."""
    while True:
        await replica.check_health()
        inbox.say(op="renew", ids=[])
        await asyncio.sleep(0.1)


async def heard(session, op):
    """The next message of that kind."""
    async for frame in session:
        message = wire.read(io.BytesIO(frame))
        if message.op == op:
            return message
    raise AssertionError(f"no {op} came")


def in_session(fake, test, lease=20.0, options=()):
    """Run `test(inbox, session, replica)`; afterwards the engine is gone."""

    async def inside():
        inbox, replica = Inbox(), Replica((*fake().engine_command, *options))
        async with asyncio.timeout(20), aclosing(replica.session(inbox, lease)) as session:
            well = asyncio.create_task(starting(inbox, replica))
            pid = None if options else (await heard(session, "ready")).head["pid"]
            well.cancel()
            found = await test(inbox, session, replica)
        while pid is not None and is_alive(pid):
            await asyncio.sleep(0.01)
        return found

    return asyncio.run(asyncio.wait_for(inside(), 30))


def test_frames_pass_both_ways(fake) -> None:
    async def test(inbox, session, _):
        inbox.start("a")
        image = await heard(session, "image")
        inbox.say(op="stop")
        return image, await heard(session, "ended")

    image, end = in_session(fake, test)
    assert image.head["id"] == "a" and image.blobs[0].startswith(b"\x89PNG")
    assert end.head["code"] == 0


def test_a_front_that_is_silent_has_gone(fake) -> None:
    async def test(inbox, session, _):
        inbox.start("a", "wait")
        return await heard(session, "ended")

    assert in_session(fake, test, lease=0.5).head["code"] == -9


def test_a_front_that_renews_is_there(fake) -> None:
    async def test(inbox, session, _):
        inbox.start("a", "wait")
        for _ in range(12):
            await asyncio.sleep(0.1)
            inbox.say(op="renew", ids=["a"])
        inbox.say(op="interrupt", id="a")
        return await heard(session, "image")

    assert in_session(fake, test, lease=1.0).head["recipe"]["interrupted"]


def test_an_image_that_nobody_wants_any_more_is_cancelled(fake) -> None:
    async def test(inbox, session, _):
        inbox.start("a", "wait")
        inbox.start("b", "wait")
        await heard(session, "step")
        inbox.say(op="renew", ids=["b"])
        gone = await heard(session, "cancelled")
        inbox.say(op="interrupt", id="b")
        return gone, await heard(session, "image")

    gone, image = in_session(fake, test)
    assert (gone.head["id"], image.head["id"]) == ("a", "b")


def test_a_front_that_dies_ends_the_engine(fake) -> None:
    async def test(inbox, session, _):
        inbox.put_nowait(ConnectionError("the actor is dead"))
        return await heard(session, "ended")

    assert in_session(fake, test).head["code"] == -9


def test_a_closed_session_leaves_no_engine(fake) -> None:
    async def test(inbox, session, _):
        inbox.start("a", "wait")
        await heard(session, "step")

    in_session(fake, test)  # which looks for it


def test_one_that_does_not_start_says_why(fake) -> None:
    async def test(inbox, session, _):
        return (await heard(session, "ended")).head

    head = in_session(fake, test, options=("--refuse-start",))
    assert (head["code"], head["said"]) == (2, "calotype: there is no such model")


def test_a_replica_that_is_no_longer_asked_for_its_health_says_so(fake, monkeypatch) -> None:
    monkeypatch.setattr(module, "HEALTH_SECONDS", 0.05)
    monkeypatch.setattr(module, "_UNASKED_SECONDS", 1.0)

    async def test(inbox, session, replica):
        for _ in range(15):
            await replica.check_health()
            await asyncio.sleep(0.1)
        assert not replica.is_leaving
        await heard(session, "leaving")
        inbox.start("a")  # what it has goes on
        return await heard(session, "image")

    assert in_session(fake, test).head["id"] == "a"


def test_an_engine_of_options_is_this_pythons_own() -> None:
    async def test():
        replica = Replica(("-c", "import sys; print(sys.executable, file=sys.stderr)"))
        async with aclosing(replica.session(Inbox(), 20.0)) as session:
            return (await heard(session, "ended")).head

    head = asyncio.run(asyncio.wait_for(test(), 20))
    assert head["said"] == sys.executable


@pytest.mark.parametrize(
    "text", ["print('x' * 100)", "print('x' * 100); import time; time.sleep(9)"]
)
def test_what_is_no_frame_ends_it(text, monkeypatch) -> None:
    monkeypatch.setattr(module, "_LEAVE_SECONDS", 0.2)

    async def test():
        replica = Replica(("-uc", text))
        async with aclosing(replica.session(Inbox(), 20.0)) as session:
            return (await heard(session, "ended")).head["code"]

    assert asyncio.run(asyncio.wait_for(test(), 20)) in (0, -9)
