"""What runs on another machine: a Ray Serve replica that starts an engine and passes frames on.

A session is one request to the deployment, for as long as a front wants a replica, so that Ray
Serve has as many replicas as fronts have sessions. Frames to the engine come through an inbox of
the front's; what the engine says is the answer, frame by frame. The session ends, and the engine
with it, when the front has gone or its lease has run out.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from calotype.errors import CalotypeError
from calotype.launch import WAITING
from calotype.serving.wire import LAST_WORDS, Message, encode, read, read_async

ENVIRONMENT = {**WAITING, "MALLOC_ARENA_MAX": "2"}
"""Of every engine, beside the one of who starts it."""
HEALTH_SECONDS = 2.0
"""How often Ray Serve asks a replica that it does not stop whether it is well."""
_UNASKED_SECONDS = 5 * HEALTH_SECONDS  # then it is being stopped
_READ_BYTES = 2**20
_MOST_FRAMES = 256  # that the front has not taken yet
_LEAVE_SECONDS = 5.0


class Inbox(Protocol):
    """Where a front puts frames: `ray.util.queue.Queue`."""

    async def get_async(self) -> bytes:
        """The next; raises when the front has gone."""


class Replica:
    """An engine for whoever has a session.

    Args:
        command: that starts the engine; where it begins with an option, for this Python.
    """

    def __init__(self, command: Sequence[str]) -> None:
        own = command[0].startswith("-")
        self._command = (sys.executable, *command) if own else tuple(command)
        self._asked = time.monotonic()

    async def check_health(self) -> None:
        """Ray Serve asks this of replicas that are not to stop."""
        self._asked = time.monotonic()

    @property
    def is_leaving(self) -> bool:
        """Whether Ray Serve stops it when its session has ended."""
        return time.monotonic() - self._asked > _UNASKED_SECONDS

    async def session(self, inbox: Inbox, lease: float) -> AsyncIterator[bytes]:
        """What an engine says, which lives as long as the session; last, how it ended.

        Args:
            inbox: frames for it.
            lease: seconds without a frame after which the front counts as gone.
        """
        self._asked = max(self._asked, time.monotonic() - HEALTH_SECONDS)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
            limit=_READ_BYTES,
        )
        session = _Session(process, inbox, lease)
        noting = asyncio.create_task(session.note())
        work = (session.hear(), session.feed(), self._tell_leaving(session))
        tasks = [noting, *(asyncio.create_task(one) for one in work)]
        try:
            while (frame := await session.frames.get()) is not None:
                yield frame
            await asyncio.wait([noting], timeout=_LEAVE_SECONDS)  # its children may hold the pipe
            yield _frame({"op": "ended", "code": await process.wait(), "said": session.last_line})
        finally:
            for task in tasks:
                task.cancel()
            _kill(process)
            await process.wait()

    async def _tell_leaving(self, session: _Session) -> None:
        while not self.is_leaving:
            await asyncio.sleep(HEALTH_SECONDS)
        await session.frames.put(_frame({"op": "leaving"}))


class _Session:
    """The ways of frames between an engine and a front."""

    def __init__(self, process: asyncio.subprocess.Process, inbox: Inbox, lease: float) -> None:
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_FRAMES)
        self._process = process
        self._inbox = inbox
        self._lease = lease
        self._held: set[str] = set()
        self.last_line = ""  # that the engine wrote for people

    async def hear(self) -> None:
        """From the engine to the front."""
        assert self._process.stdout is not None
        with suppress(CalotypeError):  # what comes is no frame: as good as dead
            while (message := await read_async(self._process.stdout)) is not None:
                if message.op in LAST_WORDS:
                    self._held.discard(str(message.head.get("id")))
                await self.frames.put(_frame(message.head, message.blobs))
        await _leave(self._process)
        await self.frames.put(None)

    async def note(self) -> None:
        """What the engine writes for people goes to the replica's log, too."""
        assert self._process.stderr is not None
        with suppress(ValueError):  # a line without an end
            async for line in self._process.stderr:
                self.last_line = line.decode(errors="replace").strip()[:500]
                print(self.last_line, file=sys.stderr)

    async def feed(self) -> None:
        """From the front to the engine, which ends with the front, or with its lease."""
        with suppress(Exception):  # whatever it is, there is no front any more
            while True:
                frame = await asyncio.wait_for(self._inbox.get_async(), self._lease)
                message = read(io.BytesIO(frame))
                if message is not None:
                    await self._take(message)
        _kill(self._process)

    async def _take(self, message: Message) -> None:
        head = message.head
        if message.op == "renew":
            await self._cancel_all_but(head["ids"])
            return
        if message.op == "start":
            self._held.add(head["id"])
        await self._write(head, message.blobs)

    async def _cancel_all_but(self, wanted: Collection[str]) -> None:
        """End what a cancel that never came would have ended."""
        for number in self._held.difference(wanted):
            self._held.discard(number)
            await self._write({"op": "cancel", "id": number})

    async def _write(self, head: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        for piece in encode(dict(head), blobs):
            stdin.write(piece)
        await stdin.drain()


def _frame(head: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    return b"".join(encode(dict(head), blobs))


async def _leave(process: asyncio.subprocess.Process) -> None:
    """See off one that says nothing more."""
    try:
        await asyncio.wait_for(process.wait(), _LEAVE_SECONDS)
    except TimeoutError:
        _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
