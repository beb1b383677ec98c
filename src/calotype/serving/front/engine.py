"""The link to an engine: started, listened to, killed when it hangs, restarted.

The hub talks to anything that is an `Engine`; this one is reached by a `Channel`: pipes to a child
process, or a session with a replica on another machine.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from calotype.errors import CalotypeError
from calotype.serving import wire
from calotype.serving.front.channels import Channel, open_process
from calotype.serving.front.errors import ApiError, engine_gone

_log = logging.getLogger(__name__)
_NO_SIGN_OF_LIFE = ("stats", "checked", "refused")  # a thread may send them while a step hangs
_LEAST_BACKOFF, _MOST_BACKOFF = 0.5, 30.0
_PATIENCE_SECONDS = 60.0  # of requests that come while there is no engine

EngineState = Literal["starting", "ready", "restarting", "stopped"]


class Engine(Protocol):
    """What images are computed by: a child process, or a replica far away.

    Attributes:
        name: for messages and metrics.
        state: whether it can be given work.
        pid: of the process; None = there is none now.
        restarts: since the server began.
        about: its `ready` message; empty before the first.
    """

    name: str
    state: EngineState
    pid: int | None
    restarts: int
    about: dict[str, Any]

    async def check(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of a request; waits for an engine that is not ready.

        Raises:
            ApiError: the request is refused, or the engine ended over it.
        """

    def send(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send `start`, `cancel`, `interrupt` or `unload`; lost where the engine has just ended."""


class Listener(Protocol):
    """Who is told what engines say."""

    def on_ready(self, engine: Engine) -> None:
        """It can be given work."""

    def on_message(self, engine: Engine, message: wire.Message) -> None:
        """It said something about an image or its speed."""

    def on_death(self, engine: Engine, reason: str, *, is_check: bool) -> None:
        """It has ended, and all that it held with it; maybe over a request that it checked."""


class EngineLink:
    """An engine, started again as often as it ends.

    Args:
        open_channel: starts it.
        listener: told what it says.
        step_timeout: seconds without a word, while it has work, after which it is killed.
        name: for messages and metrics.
    """

    def __init__(
        self,
        open_channel: Callable[[], Awaitable[Channel]],
        listener: Listener,
        *,
        step_timeout: float = 120.0,
        name: str = "engine",
    ) -> None:
        self.name = name
        self.state: EngineState = "starting"
        self.pid: int | None = None
        self.restarts = 0
        self.about: dict[str, Any] = {}
        self.refusal: int | None = None  # exit code of one that would not even start
        self._connect = open_channel
        self._listener = listener
        self._step_timeout = step_timeout
        self._ready = asyncio.Event()
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()  # of requests to be checked
        self._is_retrying = False
        self._check: tuple[str, asyncio.Future[wire.Message | None]] | None = None
        self._held: set[str] = set()
        self._heard = 0.0
        self._backoff = _LEAST_BACKOFF
        self._reason = ""

    async def run(self) -> None:
        """Keep an engine alive until cancelled; returns early where it would not start at all."""
        try:
            while True:
                code = await self._live()
                if not self.about and code > 0:  # it said why on stderr; it would again
                    self.refusal = code
                    return
                self.restarts += 1
                await asyncio.sleep(self._backoff)
                self._backoff = min(2 * self._backoff, _MOST_BACKOFF)
        finally:
            self.state = "stopped"
            self.pid = self._channel = None
            self._ready.set()  # who waits is told

    async def check(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """As `Engine.check`; a check that an engine ended over is tried once more, alone.

        One at a time, as the engine answers them, and the second time before there is an image: so
        the second end tells that it was the check's.
        """
        async with self._turn:
            try:
                for _ in range(2):
                    await self._until_ready()
                    if self.state == "stopped":
                        break
                    message = await self._answer(head)
                    if message is not None:
                        return _plan(message)
                    self._is_retrying = True
            finally:
                if self._is_retrying:
                    self._is_retrying = False
                    self._open()
        raise engine_gone("the engine ended while it looked at this request; try another")

    async def _answer(self, head: Mapping[str, Any]) -> wire.Message | None:
        """None = the engine ended over it."""
        number = secrets.token_hex(8)
        answer: asyncio.Future[wire.Message | None] = asyncio.get_running_loop().create_future()
        self._check = number, answer
        try:
            self.send({"op": "check", **head, "id": number})
            return await asyncio.wait_for(answer, self._step_timeout)
        except TimeoutError:
            self.kill("it did not answer and was ended")
            return None
        finally:
            self._check = None

    async def _until_ready(self) -> None:
        try:
            await asyncio.wait_for(self._ready.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            message = "the engine is being started again; ask again in a moment"
            raise ApiError(
                503, message, code="engine_restarting", retry_after=self._backoff
            ) from None

    def send(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """As `Engine.send`."""
        if head["op"] == "start":
            self._touch()
            self._held.add(head["id"])
        if self._channel is not None:  # else on_death is on its way
            self._channel.write(head, blobs)

    def kill(self, reason: str) -> None:
        """End it now; the next starts after a while."""
        self._reason = reason
        if self._channel is not None:
            self._channel.kill()

    async def _live(self) -> int:
        """One life, from start to end; the exit code, negative for a signal."""
        self._reason = ""
        try:
            channel = await self._connect()
        except OSError as error:
            self._died(f"it cannot be started: {error.strerror or error}")
            return -1
        self._channel, self.pid = channel, channel.pid
        watching = asyncio.create_task(self._watch())
        try:
            with suppress(CalotypeError):  # what comes is no frame: as good as dead
                while (message := await channel.read()) is not None:
                    self._received(message)
        except Exception:  # a defect of ours: this engine ends, but the next one is started
            _log.exception("what the engine said could not be used")
            self.kill("what it said could not be used")
        finally:
            watching.cancel()
            code, reason = await channel.leave()
        self._died(self._reason or reason)
        return code

    def _died(self, reason: str) -> None:
        self._channel = self.pid = None
        self.state = "restarting"
        self._ready.clear()
        self._held.clear()
        check = self._check
        if check is not None and not check[1].done():
            check[1].set_result(None)
        self._listener.on_death(self, reason, is_check=check is not None)

    def _received(self, message: wire.Message) -> None:
        if message.op not in _NO_SIGN_OF_LIFE:
            self._heard = time.monotonic()
        number = str(message.head.get("id", ""))
        match message.op:
            case "ready":
                self.about = message.head
                self.pid = message.head.get("pid", self.pid)
                self._ready.set()
                self._open()
                return
            case "checked" | "refused":
                check = self._check
                if check is not None and check[0] == number and not check[1].done():
                    check[1].set_result(message)
                return
            case "image":
                self._backoff = _LEAST_BACKOFF  # it works
        if message.op in wire.LAST_WORDS:
            self._held.discard(number)
        self._listener.on_message(self, message)

    def _open(self) -> None:
        """Let images come, if it is ready and no request is looked at for the second time."""
        if self._ready.is_set() and self.state != "stopped" and not self._is_retrying:
            self.state = "ready"
            self._listener.on_ready(self)

    def _touch(self) -> None:
        """What was idle until now has its time from now on."""
        if not self._held:
            self._heard = time.monotonic()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._step_timeout / 4, 5.0))
            silent = time.monotonic() - self._heard
            if self._held and silent > self._step_timeout:
                self.kill(f"it said nothing for {silent:.0f} s and was ended")
                return


class EngineProcess(EngineLink):
    """An engine as a child process.

    Args:
        command: that starts it; it speaks `wire` on its standard input and output.
        listener: these and the options are as of `EngineLink`.
    """

    def __init__(self, command: Sequence[str], listener: Listener, **options: Any) -> None:
        super().__init__(lambda: open_process(command), listener, **options)


def _plan(message: wire.Message) -> dict[str, Any]:
    head = message.head
    if message.op == "checked":
        return dict(head["plan"])
    raise ApiError(400, str(head["message"]), code="invalid_value", param=head.get("param"))
