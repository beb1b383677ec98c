"""What a user sees while something takes long: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Self

LINE_SECONDS = 30.0


class Display:
    """How far something is: a line on stderr now and then; on a terminal a bar, once entered.

    Args:
        title: what is done.
        total: how much there is to do; None = not known yet.
        quiet: show nothing.
        lasting: the bar stays when all is done, and the first line comes at once.
        seconds: between lines; `LINE_SECONDS` if not given.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        *,
        quiet: bool = False,
        lasting: bool = False,
        seconds: float | None = None,
    ) -> None:
        from rich import progress as rich
        from rich.console import Console

        self.total = total
        self._title, self._done = title, 0
        self._quiet = quiet
        self._seconds = LINE_SECONDS if seconds is None else seconds
        self._next_line = 0.0 if lasting else time.monotonic() + self._seconds
        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[facts]}"),
            rich.TimeElapsedColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,
            transient=not lasting,
        )
        self._task = self._bar.add_task(title, total=total, facts="")

    def __enter__(self) -> Self:
        if self._bar.console.is_terminal and not self._quiet:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def advance(self, more: int, total: int | None = None) -> None:
        """So many more are done, of so many in all."""
        self.update(self._done + more, total)

    def update(self, done: int, total: int | None = None, facts: str = "") -> None:
        """So many are done, of so many in all; `facts` stand behind."""
        self._done, self.total = done, self.total if total is None else total
        if self._bar.live.is_started:
            self._bar.update(self._task, completed=done, total=self.total, facts=facts)
        elif not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._seconds
            whole = "" if self.total is None else f" of {self.total:,}"
            print(f"{self._title}: {done:,}{whole} {facts}".rstrip(), file=sys.stderr, flush=True)
