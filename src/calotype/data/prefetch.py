"""Work ahead on one background thread, a bounded number of items, errors and all."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    """There are no more items."""


def prefetched(items: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """The same items, computed on a background thread: `ahead` wait, and one more is in work.

    The thread starts with the first item asked for. Closing the generator (or dropping it) stops
    the thread before it returns. What `items` raises is raised here, in its place.
    """

    def step() -> T | _End:
        return next(items, _End())

    with ThreadPoolExecutor(1, thread_name_prefix="calotype-prefetch") as thread:
        try:
            made = deque(thread.submit(step) for _ in range(ahead + 1))
            while not isinstance(item := made.popleft().result(), _End):
                made.append(thread.submit(step))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            close = getattr(items, "close", None)
            if close is not None:
                close()
