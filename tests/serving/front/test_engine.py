"""The link to the engine: starts, ends, silence, and what is no frame."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager

import pytest

from calotype.serving.front import channels
from calotype.serving.front import engine as module
from calotype.serving.front.engine import EngineProcess
from calotype.serving.front.errors import ApiError

HEAD = {"request": {"prompt": "a fox", "model": None, "size": None, "steps": None}, "source": None}


class Heard:
    """What a listener is told."""

    def __init__(self):
        self.ready = 0
        self.deaths = []
        self.messages = []

    def on_ready(self, engine):
        self.ready += 1

    def on_message(self, engine, message):
        self.messages.append(message)

    def on_death(self, engine, reason, *, is_check):
        self.deaths.append(reason)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_BACKOFF", 0.01)
    monkeypatch.setattr(channels, "_LEAVE_SECONDS", 0.2)


@asynccontextmanager
async def running(command, **options):
    heard = Heard()
    engine = EngineProcess(command, heard, **options)
    task = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(20):
            yield engine, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.state == "stopped" and engine.pid is None


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def script(text):
    return sys.executable, "-c", text


READY = (
    "import os, sys, time; from calotype.serving import wire\n"
    "def say(**head):\n"
    "    sys.stdout.buffer.write(b''.join(wire.encode(head))); sys.stdout.buffer.flush()\n"
    "say(op='ready', pid=os.getpid(), models=[])\n"
)


def test_it_plans_and_refuses(fake) -> None:
    async def test():
        async with running(fake().engine_command) as (engine, _):
            plan = await engine.check(HEAD)
            bad = {**HEAD, "request": {**HEAD["request"], "prompt": "refuse seed"}}
            with pytest.raises(ApiError) as found:
                await engine.check(bad)
            return plan, found.value, engine.about["models"][0]["name"]

    plan, error, name = asyncio.run(test())
    assert plan["calls"] == 4 and (error.param, error.status) == ("seed", 400)
    assert name == "default"


def test_a_check_that_ends_the_engine_is_tried_twice_and_harms_no_other(fake) -> None:
    async def test():
        async with running(fake().engine_command) as (engine, heard):
            bad = {**HEAD, "request": {**HEAD["request"], "prompt": "die in check"}}
            found, plan = await asyncio.gather(
                engine.check(bad), engine.check(HEAD), return_exceptions=True
            )
            return found, plan, heard.deaths

    found, plan, deaths = asyncio.run(test())
    assert isinstance(found, ApiError) and found.status == 500
    assert plan["calls"] == 4 and len(deaths) == 2 and "exit code 7" in deaths[0]


def test_it_gets_a_quiet_environment_and_its_own_session() -> None:
    text = READY + (
        "say(op='told', env=[os.environ.get(n) for n in"
        " ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'MALLOC_ARENA_MAX')],"
        " alone=os.getsid(0) == os.getpid()); time.sleep(60)"
    )

    async def test():
        async with running(script(text)) as (_, heard):
            await until(lambda: heard.messages)
            return heard.messages[0].head

    told = asyncio.run(test())
    assert told == {"op": "told", "env": ["PASSIVE", "1000", "2"], "alone": True}


def test_what_is_no_frame_ends_it() -> None:
    async def test():
        text = READY + "sys.stdout.buffer.write(b'x' * 100); sys.stdout.flush(); time.sleep(60)"
        async with running(script(text)) as (_, heard):
            await until(lambda: heard.deaths and heard.ready > 1)
            return heard.deaths[0]

    assert "signal 9" in asyncio.run(test())


def test_one_that_never_starts_is_not_tried_for_ever() -> None:
    async def test():
        async with running(script("import sys; sys.exit(2)")) as (engine, heard):
            await until(lambda: engine.state == "stopped")
            with pytest.raises(ApiError):
                await engine.check(HEAD)
            return engine.refusal, len(heard.deaths)

    assert asyncio.run(test()) == (2, 1)


def test_one_that_is_killed_before_it_is_ready_is_started_again() -> None:
    async def test():
        text = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        async with running(script(text)) as (engine, heard):
            await until(lambda: len(heard.deaths) > 2)
            return engine.refusal, heard.deaths[0]

    refusal, reason = asyncio.run(test())
    assert refusal is None and "signal 9" in reason


def test_a_missing_program_is_told_and_tried_again() -> None:
    async def test():
        async with running(("/nowhere/engine",)) as (_, heard):
            await until(lambda: len(heard.deaths) > 1)
            return heard.deaths[0]

    assert "cannot be started" in asyncio.run(test())


def test_waits_between_starts_double_up_to_a_limit(monkeypatch) -> None:
    waits = []
    real = asyncio.sleep

    async def sleep(seconds):
        if seconds < 4:  # the watchdog's are longer
            waits.append(seconds)
        await real(0)

    async def test():
        monkeypatch.setattr(module, "_MOST_BACKOFF", 0.04)
        async with running(("/nowhere/engine",)) as (_, heard):
            monkeypatch.setattr(module.asyncio, "sleep", sleep)
            while len(heard.deaths) < 6:
                await real(0.001)
            monkeypatch.setattr(module.asyncio, "sleep", real)

    asyncio.run(test())
    assert waits[:5] in ([0.01, 0.02, 0.04, 0.04, 0.04], [0.02, 0.04, 0.04, 0.04, 0.04])


@pytest.mark.parametrize("noise", ["say(op='stats', rss=1, active=1, waiting=0)", "pass"])
def test_silence_with_work_ends_it_whatever_its_other_threads_say(noise) -> None:
    async def test():
        text = f"{READY}while True:\n    time.sleep(0.02); {noise}"
        async with running(script(text), step_timeout=0.4) as (engine, heard):
            await until(lambda: heard.ready)
            await asyncio.sleep(0.6)
            assert not heard.deaths  # without work it may be silent
            engine.send({"op": "start", "id": "x"})
            began = time.monotonic()
            await until(lambda: heard.deaths)
            return heard.deaths[0], time.monotonic() - began

    reason, seconds = asyncio.run(test())
    assert "said nothing" in reason and 0.4 <= seconds < 5


def test_a_check_without_an_answer_ends_it() -> None:
    async def test():
        text = f"{READY}time.sleep(60)"
        async with running(script(text), step_timeout=0.2) as (engine, heard):
            with pytest.raises(ApiError, match="ended while it looked"):
                await engine.check(HEAD)
            return heard.deaths[0]

    assert "did not answer" in asyncio.run(test())


def test_requests_wait_for_an_engine_but_not_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)

    async def test():
        async with running(script("import time; time.sleep(60)")) as (engine, _):
            with pytest.raises(ApiError) as found:
                await engine.check(HEAD)
            return found.value

    error = asyncio.run(test())
    assert error.status == 503 and error.retry_after is not None


def test_a_defect_over_what_it_says_ends_one_life_alone(monkeypatch, caplog) -> None:
    def fails(self, engine, message):
        raise KeyError("model")

    async def test():
        monkeypatch.setattr(Heard, "on_message", fails)
        async with running(script(READY + "say(op='call'); time.sleep(60)")) as (_, heard):
            await until(lambda: heard.ready > 1)
            return heard.deaths[0]

    assert asyncio.run(test()) == "what it said could not be used"
    assert "could not be used" in caplog.text
