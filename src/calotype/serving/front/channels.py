"""How an engine is reached; the channel here is the pipes of a child process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from calotype.serving import wire
from calotype.serving.replica import ENVIRONMENT

_READ_BYTES = 2**20
_LEAVE_SECONDS = 5.0


class Channel(Protocol):
    """One life of an engine.

    Attributes:
        pid: of the engine; None = not known yet.
    """

    pid: int | None

    async def read(self) -> wire.Message | None:
        """What it says next; None = it has ended.

        Raises:
            CalotypeError: what comes is no frame.
        """

    def write(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Tell it something; lost where it has just ended."""

    def kill(self) -> None:
        """End it now."""

    async def leave(self) -> tuple[int, str]:
        """See it off; its exit code, negative where it did not end by itself, and why it ended."""


async def open_process(command: Sequence[str]) -> Channel:
    """An engine as a child process.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        limit=_READ_BYTES,
        start_new_session=True,  # Ctrl-C is for the front, which lets work finish
    )
    return _Pipes(process)


class _Pipes:
    """As `Channel`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.pid: int | None = process.pid
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    async def read(self) -> wire.Message | None:
        return await wire.read_async(self._stdout)

    def write(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        if self._stdin.is_closing():
            return
        for piece in wire.encode(head, blobs):
            self._stdin.write(piece)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def leave(self) -> tuple[int, str]:
        """It ends by itself when nobody writes to it any more."""
        self._stdin.close()
        try:
            code = await asyncio.wait_for(self._process.wait(), _LEAVE_SECONDS)
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        return code, ended(code)


def ended(code: int) -> str:
    """What is told of an exit code."""
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
