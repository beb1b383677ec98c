"""What a user sees while training: loss, images a second and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from calotype.progress import Display

_SMOOTHING_SECONDS = 20.0


@dataclass
class RateMeter:
    """Images a second and the fraction of time spent waiting for data, smoothed over 20 seconds.

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
        fraction = 1 - 2.0 ** (-seconds / _SMOOTHING_SECONDS)
        self._weight += fraction * (1 - self._weight)
        fraction /= self._weight
        self.images_per_second += fraction * (images / seconds - self.images_per_second)
        self.data_wait += fraction * (waited / seconds - self.data_wait)
        self.loss += fraction * (loss - self.loss)


class TrainingDisplay(Display):
    """A bar or lines with loss, images a second and the time left; `total` is where it ends."""

    def show(self, images: int, meter: RateMeter) -> None:
        """Show how far it is."""
        seconds = ((self.total or images) - images) / max(meter.images_per_second, 1e-5)
        facts = f"images, loss {meter.loss:.4f}, {meter.images_per_second:.1f} images/s"
        if meter.data_wait > 0.05:
            facts += f", data wait {meter.data_wait:.0%}"
        self.update(images, facts=f"{facts}, {timedelta(seconds=int(min(seconds, 1e9)))} left")
