"""A counter on stderr while data are worked on: live on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calotype.data.source import SourceReport

LINE_SECONDS = 30.0


@contextmanager
def counting(title: str, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A function to be told how many more are done, and of how many in all (`total=`)."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _lines(title, quiet=quiet)
        return
    columns = (TextColumn(title), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda more, total=None: bar.update(task, advance=more, total=total)


def tell_findings(report: SourceReport) -> None:
    """Say what of the data is not used, before the work, if there is any."""
    from calotype.data.account import findings

    if found := findings(report):
        print(f"calotype: data: {', '.join(found)}", file=sys.stderr, flush=True)


def _lines(title: str, *, quiet: bool) -> Callable[..., None]:
    done, last = 0, time.monotonic()

    def advance(more: int, total: int | None = None) -> None:
        nonlocal done, last
        done += more
        if not quiet and time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            whole = "" if total is None else f" of {total:,}"
            print(f"{title}: {done:,}{whole}", file=sys.stderr, flush=True)

    return advance
