"""Work beside the training thread, one piece at a time: writing checkpoints while steps go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class BackgroundWork:
    """One thread, at most one piece of work; its errors come up in the thread that asked."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._work: Future[None] | None = None

    def __enter__(self) -> BackgroundWork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self.wait()

    def start(self, work: Callable[[], None]) -> None:
        """Start a piece of work, after the one before it."""
        self.wait()
        self._work = self._pool.submit(work)

    def wait(self) -> None:
        """Wait for the work in hand, and raise its error."""
        if self._work is not None:
            work, self._work = self._work, None
            work.result()

    def check(self) -> None:
        """Raise the error of work that has failed; never wait."""
        if self._work is not None and self._work.done():
            self.wait()
