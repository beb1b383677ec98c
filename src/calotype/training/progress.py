"""What a user sees while training: a live bar on a terminal, or a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 30.0
_SMOOTHING_SECONDS = 20.0


@dataclass
class RateMeter:
    """Images a second and the share of time spent waiting for data, smoothed over 20 seconds.

    Args:
        clock: seconds; an argument for tests.
    """

    clock: Callable[[], float] = time.perf_counter
    images_per_second: float = 0.0
    data_wait: float = 0.0
    loss: float = 0.0
    _weight: float = field(default=0.0)

    def update(self, *, images: int, seconds: float, waited: float, loss: float) -> None:
        """Take in one step."""
        seconds = max(seconds, 1e-9)
        share = 1 - 2.0 ** (-seconds / _SMOOTHING_SECONDS)
        self._weight += share * (1 - self._weight)
        share /= self._weight
        self.images_per_second += share * (images / seconds - self.images_per_second)
        self.data_wait += share * (waited / seconds - self.data_wait)
        self.loss += share * (loss - self.loss)


class TrainingDisplay:
    """A bar with loss, images a second and the time left.

    Args:
        title: what is trained.
        total_images: length of the bar.
        quiet: show nothing.
    """

    def __init__(self, title: str, total_images: int, *, quiet: bool = False) -> None:
        """Choose between a bar and lines."""
        self._title = title
        self._total = total_images
        self._quiet = quiet
        console = Console(stderr=True)
        self._bar = _bar(console) if console.is_terminal and not quiet else None
        self._last_line = 0.0

    def __enter__(self) -> TrainingDisplay:
        """Start the bar."""
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, facts="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, images: int, meter: RateMeter) -> None:
        """Show how far it is."""
        if self._bar is not None:
            facts = f"loss {meter.loss:.4f}  {meter.images_per_second:.1f} images/s"
            if meter.data_wait > 0.05:
                facts += f"  data wait {meter.data_wait:.0%}"
            self._bar.update(self._task, completed=images, facts=facts)
        elif not self._quiet and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            left = (self._total - images) / max(meter.images_per_second, 1e-9)
            print(
                f"{self._title}: {images}/{self._total} images, loss {meter.loss:.4f}, "
                f"{meter.images_per_second:.1f} images/s, data wait {meter.data_wait:.0%}, "
                f"{_duration(left)} left",
                file=sys.stderr,
                flush=True,
            )


class CountDisplay:
    """Progress of a preparation, e.g. embedding captions: `count(done, total)`."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        """Name the preparation."""
        self._title = title
        self._quiet = quiet
        self._last_line = time.monotonic()

    def count(self, done: int, total: int) -> None:
        """Say how far it is, every few seconds."""
        now = time.monotonic()
        if not self._quiet and now - self._last_line > 5.0:
            self._last_line = now
            print(f"{self._title}: {done}/{total}", file=sys.stderr, flush=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(min(seconds, 1e9)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
