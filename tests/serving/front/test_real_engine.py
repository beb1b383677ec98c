"""The hub with the real engine and a tiny cascade."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from calotype.cascade.results import drain
from calotype.generation.loaded import load
from calotype.runtime import Runtime
from calotype.serving.engine import faults
from calotype.serving.engine.open import open_task
from calotype.serving.engine.shelf import Entry, open_model
from calotype.serving.engine.tasks import Source
from calotype.serving.front.errors import ApiError

pytestmark = pytest.mark.slow


@pytest.fixture
def with_model(with_hub, model):
    """Run a coroutine function on a hub whose engine serves the tiny cascade as "tiny"."""

    def run(test, **changes):
        options = {"models": (f"tiny={model}",), "dtype": "float32", "threads": 1}
        return with_hub(test, engine_command=None, step_timeout=60.0, **options, **changes)

    return run


async def heard(hub, job):
    return [event async for event in hub.events(job)]


def test_images_steps_and_previews_come(with_model, submission) -> None:
    async def test(hub):
        asked = submission("red left", request={"n": 2}, previews="steps", preview_side=8)
        job = await hub.submit(asked)
        return job, await heard(hub, job)

    job, events = with_model(test)
    kinds = [event.kind for event in events]
    assert kinds[-1] == "done" and kinds.count("image") == 2
    assert {"started", "step", "preview"} <= set(kinds)
    for image in job.images:
        assert Image.open(io.BytesIO(image.data)).size == (image.width, image.height)
        assert image.recipe["seed"] == image.seed and image.fraction == 1
    assert job.plan["model"] == "tiny" and job.plan["calls"] > 0


def test_wrong_requests_name_their_field(with_model, submission) -> None:
    async def test(hub):
        found = []
        for request in ({"model": "other"}, {"sampler": "nothing"}):
            with pytest.raises(ApiError) as error:
                await hub.submit(submission(request=request))
            found.append((error.value.status, error.value.param))
        return found

    assert with_model(test) == [(400, "model"), (400, "sampler")]


def test_a_killed_engine_costs_no_image(with_model, submission) -> None:
    async def test(hub):
        engine = hub.work.engines[0]
        asked = submission("red left", request={"n": 4, "steps": 100})
        alone = await hub.submit(asked)
        await heard(hub, alone)
        job = await hub.submit(asked)
        async for event in hub.events(job):
            if event.kind == "step" and engine.restarts == 0 and engine.pid is not None:
                os.kill(engine.pid, signal.SIGKILL)
        assert engine.restarts == 1 and job.state == "done"
        pixels = [
            [Image.open(io.BytesIO(image.data)).convert("RGB") for image in one.images]
            for one in (alone, job)
        ]
        return [
            max(high for _, high in ImageChops.difference(one, other).getextrema())
            for one, other in zip(*pixels, strict=True)
        ]

    assert max(with_model(test)) <= 1  # neighbours change pixels by rounding only


@pytest.fixture
def alone(model):
    """What the ordinary path makes of requests, in this process and undisturbed: (H, W, 3)."""
    opened = open_model(Entry("tiny", str(model)), Runtime("cpu", "float32", 1))
    source = Source(opened.folder, load(opened.job))

    def make(request, seed):
        with torch.no_grad():
            return drain(open_task(source, request, seed, None).generate()).pixels

    return make


@pytest.mark.parametrize("point", ["load", 8, 16, 32, "file"])
def test_an_engine_killed_at_any_stage_costs_no_image_of_any_client(
    with_model, submission, alone, monkeypatch, tmp_path, point
) -> None:
    (tmp_path / "faults").mkdir()
    monkeypatch.setenv(faults.VARIABLE, str(tmp_path / "faults"))
    asked = [
        submission(f"fault:die@{point}!", client="a", request={"n": 2}),
        submission("red left", client="b", request={"n": 2, "exact": True, "seed": 5}),
        submission("blue right", client="c", request={"seed": 9}),
    ]

    async def test(hub):
        jobs = [await hub.submit(one) for one in asked]
        events = await asyncio.gather(*(heard(hub, job) for job in jobs))
        kept = (await hub.store.listing(None, limit=200)).images
        return jobs, events, kept, hub.work.engines[0].restarts

    jobs, events, kept, restarts = with_model(test, data=tmp_path / "data", keep="all")
    assert restarts == 1 and [job.state for job in jobs] == ["done"] * 3
    for job, told in zip(jobs, events, strict=True):
        indices = [event.data["image"] for event in told if event.kind == "image"]
        assert sorted(indices) == list(range(len(job.images))), "each comes once"
        for image in job.images:
            with Image.open(io.BytesIO(image.data)) as opened:
                found = np.asarray(opened.convert("RGB")).astype(int)
            far = np.abs(found - alone(job.request, image.seed)).max()
            assert far <= (0 if job.request.exact else 1)
    images = [image for job in jobs for image in job.images]
    assert max(image.deaths for image in images) == 1
    assert sorted(one.id for one in kept) == sorted(image.id for image in images)
    files = list((tmp_path / "data" / "images").glob("*/*"))
    assert sorted(path.stem for path in files) == sorted(image.id for image in images)


def test_cancelling_frees_the_rows_within_a_step(with_model, submission) -> None:
    async def test(hub):
        job = await hub.submit(submission("red left", request={"steps": 256}))
        async for event in hub.events(job):
            if event.kind == "step":
                assert event.data["step"] < 250
                hub.cancel(job)
        async with asyncio.timeout(5):
            while hub.work.active:
                await asyncio.sleep(0.01)
        return job.state

    assert with_model(test) == "cancelled"


def start(*options):
    command = [sys.executable, "-m", "calotype", "serve", "--port", "0", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_the_command_serves_until_it_is_told_to_end(model, tmp_path) -> None:
    process = start("--model", f"tiny={model}", "--data", str(tmp_path), "--dtype", "float32")
    try:
        address = process.stdout.readline().removeprefix("serving on ").strip()
        assert httpx.get(f"{address}/readyz").text == "ready\n"
        process.terminate()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and out == ""
    assert "engine ready" in {json.loads(line)["event"] for line in err.splitlines()}


def test_a_model_that_is_none_ends_the_command(tmp_path) -> None:
    process = start("--model", "x=/nowhere", "--data", str(tmp_path))
    out, err = process.communicate(timeout=60)
    plain = [line for line in err.splitlines() if not line.startswith("{")]
    assert process.returncode == 1 and out == "" and len(plain) == 2
    assert "/nowhere" in plain[0] and plain[1].startswith("calotype: the engine does not start")
