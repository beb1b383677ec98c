"""Connections: none waits for ever for a request that does not come, and there is room for many."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from calotype.serving.front import limits


class Connection(H11Protocol):
    """As uvicorn's, but the head of a request has to arrive in its time, however slowly it drips.

    Uvicorn itself has patience without end until the first request is complete.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """It says something."""
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._forget()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # a request is here, or the end of all
            self._forget()
        elif self._patience is None:
            self._patience = self.loop.call_later(limits.HEAD_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def allow_many_files() -> None:
    """Let the process have as many connections as the system lets it, up to `MOST_OPEN_FILES`."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = limits.MOST_OPEN_FILES
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        if now != resource.RLIM_INFINITY and now < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


UVICORN: dict[str, Any] = {
    "http": Connection,  # h11, which bounds headers
    "h11_max_incomplete_event_size": limits.MOST_HEADER_BYTES,
    "ws": "none",
    "server_header": False,
    "access_log": False,  # there is a log of our own
}
"""Settings of the HTTP server."""
