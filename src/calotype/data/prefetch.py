"""Work ahead on one background thread, a bounded number of items, errors and all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    pass


def prefetched(items: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """The same items, computed up to `ahead` of the consumer on a background thread.

    The thread starts with the first item asked for. Closing the generator (or dropping it) stops
    the thread before it returns. What `items` raises is raised here, in its place.
    """
    ready: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, ready, stop), name="calotype-prefetch", daemon=True
    )
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join()


def _produce(
    items: Iterator[T], ready: queue.Queue[T | _Failure | _End], stop: threading.Event
) -> None:
    try:
        for item in items:
            if not _put(ready, item, stop):
                break
        else:
            _put(ready, _End(), stop)
    except BaseException as error:
        _put(ready, _Failure(error), stop)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _put(
    ready: queue.Queue[T | _Failure | _End], item: T | _Failure | _End, stop: threading.Event
) -> bool:
    """Wait for room; False when the consumer has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False
