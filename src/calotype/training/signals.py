"""SIGTERM and Ctrl-C as a wish: the step is finished and a checkpoint written before the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class Stopped(Exception):
    """Preparations were broken off because somebody asked for the end."""


class StopRequest:
    """Whether the user wants the run to end, and with which exit code."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.exit_code: int | None = None

    def __bool__(self) -> bool:
        """Whether somebody has asked."""
        return self.exit_code is not None

    def check(self) -> None:
        """Break off what can be broken off.

        Raises:
            Stopped: somebody has asked for the end.
        """
        if self:
            raise Stopped

    def ask(self, exit_code: int) -> None:
        """Ask for the end after this step."""
        self.exit_code = exit_code


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGINT for the length of a `with` block; a second Ctrl-C is immediate."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.ask(EXIT_CODES[signal.Signals(number)])

    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
