"""SIGTERM, SIGHUP and Ctrl-C as a wish: the step is finished, a checkpoint written, then it ends.

A second one ends at once: whoever asks twice does not want to wait for a step, a preparation or a
read that hangs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from calotype.training.distributed import ALONE, Group

EXIT_CODES = {
    number: code
    for name, code in (("SIGTERM", 0), ("SIGHUP", 0), ("SIGINT", 130))
    if (number := getattr(signal, name, None)) is not None  # Windows has no SIGHUP
}


class Stopped(Exception):
    """Preparations were broken off because somebody asked for the end."""


class StopRequest:
    """Whether the user wants the run to end, and with which exit code.

    Of several processes any may be asked; all must end after the same step. There a wish counts
    when all know of it, by `agree`.

    Args:
        group: the processes that must end together.
    """

    def __init__(self, group: Group = ALONE) -> None:
        self.exit_code: int | None = None
        self.wish: int | None = None  # of this process alone
        self._group = group

    def __bool__(self) -> bool:
        return self.exit_code is not None

    def agree(self) -> None:
        """Make the wish of any process that of all; every process calls this at the same place."""
        code = int(self._group.max(-1 if self.wish is None else self.wish))
        if code >= 0:
            self.exit_code = code

    def check(self) -> None:
        """Break off what can be broken off.

        Raises:
            Stopped: somebody has asked this process for the end.
        """
        if self.wish is not None or self:
            raise Stopped

    def ask(self, exit_code: int) -> None:
        """Ask for the end after this step."""
        self.wish = exit_code
        if self._group.alone:
            self.exit_code = exit_code


@contextmanager
def stop_on_signals(group: Group = ALONE) -> Iterator[StopRequest]:
    """Catch the signals for the length of a `with` block; the second one acts as it would outside.

    Of several processes each gets a signal twice, from the terminal or system and from torchrun:
    there it is torchrun that ends those which do not end.
    """
    request = StopRequest(group)
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if group.alone and request.wish is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        request.ask(EXIT_CODES[signal.Signals(number)])

    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
