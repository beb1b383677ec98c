"""Decoded images: at the limit, above and far above it, and let go of when jobs are over."""

from __future__ import annotations

import asyncio
import gc
import io

import pytest
from PIL import Image

from calotype.serving.front import decoded as module
from calotype.serving.front.decoding import MOST_PIXELS
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask
from calotype.serving.front.limits import MOST_BODY, MOST_DECODED
from calotype.serving.front.revive import Pixels
from calotype.serving.front.uploads import decode, fitted

FULL = 429, "queue_full", True
TWO = 2 * 4 * MOST_PIXELS  # that are decoded at the same time


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A limit of so many bytes beside what other tests have left: `room(100)`."""
    gc.collect()
    before = module.held()

    def set_to(most):
        monkeypatch.setattr(module, "MOST_DECODED", before + most)

    yield set_to
    gc.collect()  # what errors hold


def pixels(count):
    return Pixels("s", count, 1, bytes(4 * count))


async def refusal(hub, submission, count):
    """What is said to a job that has no room; nothing of it stays."""
    edit = {"kind": "image_to_image", "strength": 0.5}
    with pytest.raises(ApiError) as found:
        await hub.submit(submission("wait", request=edit, source=pixels(count)))
    told = found.value.status, found.value.code, bool(found.value.retry_after)
    del found
    gc.collect()  # the error's frames hold what it is about
    return told


def test_the_real_limit_has_room_for_two_and_for_a_body_of_images():
    assert MOST_DECODED >= TWO + 4 * (4 + 1) * MOST_PIXELS > 2 * MOST_BODY


@pytest.mark.slow
def test_images_of_waiting_and_running_jobs_at_above_and_far_above(
    with_hub, submission, room
) -> None:
    room(5 * 400)

    async def test(hub):
        edit = {"kind": "image_to_image", "strength": 0.5}
        jobs = [
            await hub.submit(submission("wait", request=edit, source=pixels(100))) for _ in range(5)
        ]
        for count in (1, 100, 100_000):
            assert await refusal(hub, submission, count) == FULL
        await hub.submit(submission("wait"))  # without an image there is room
        hub.cancel(jobs[0])  # it runs
        hub.cancel(jobs[-1])  # it waits
        while hub.work.active > 1:
            await asyncio.sleep(0.01)
        mask = Mask("m", 100, 1, bytes(100))
        inpaint = {"kind": "inpaint"}
        await hub.submit(submission("wait", request=inpaint, source=pixels(100), mask=mask))
        assert await refusal(hub, submission, 76) == FULL
        await hub.submit(submission("wait", request=edit, source=pixels(75)))  # to the byte
        return [job.submission.source is None for job in jobs]

    assert with_hub(test, active=2) == [True, False, False, False, True]


def test_images_of_revived_jobs_count(with_hub, submission, room, tmp_path) -> None:
    room(400)

    async def left(hub):
        hub.work.is_paused = True
        edit = {"kind": "image_to_image", "strength": 0.5}
        await hub.submit(submission("wait", request=edit, source=pixels(100), outlives=True))

    async def after(hub):
        return await refusal(hub, submission, 1)

    with_hub(left, data=tmp_path)
    gc.collect()
    assert with_hub(after, data=tmp_path) == FULL


@pytest.mark.parametrize(("more", "is_full"), [(0, False), (1, True), (10**9, True)])
def test_nothing_is_decoded_that_may_have_no_room(room, more, is_full) -> None:
    room(TWO + 400)
    there = pixels(100)
    module.count(there, there, None)  # once
    other = Mask("m", more, 1, range(more))  # as long as it says
    module.count(other)
    file = io.BytesIO()
    Image.new("RGB", (5, 3)).save(file, "PNG")
    if is_full:
        with pytest.raises(ApiError) as found:
            asyncio.run(decode(file.getvalue(), role="source"))
        assert found.value.status == 429 and found.value.retry_after
    else:
        upload = asyncio.run(decode(file.getvalue(), role="source"))
        assert module.held() >= 400 + 60
        larger = fitted(upload, 50, 30, "stretch")
        module.count(larger)
        before = module.held()
        del upload
        assert before - module.held() == 60
