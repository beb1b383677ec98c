"""Decoded images that are in memory: how many bytes they have together, and when that is enough.

Each is counted until nothing holds it any more, wherever it went: between its decoding and its job,
while the job waits, while it runs. A job that is over lets go of them.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask, Source
from calotype.serving.front.limits import MOST_DECODED

_RETRY_SECONDS = 5.0
_alive: WeakValueDictionary[int, Source | Mask] = WeakValueDictionary()  # by identity


def count(*pixels: Source | Mask | None) -> None:
    """Count images from now on; one that is counted already is not counted twice."""
    for one in pixels:
        if one is not None:
            _alive[id(one)] = one


def held() -> int:
    """Bytes of all images that are counted."""
    found = (reference() for reference in _alive.valuerefs())  # threads may let go of some
    return sum(len(one.values if isinstance(one, Mask) else one.rgba) for one in found if one)


def check_room(coming: int = 0) -> None:
    """Refuse what would be too much.

    Args:
        coming: bytes beside those that are counted.

    Raises:
        ApiError: 429.
    """
    if held() + coming > MOST_DECODED:
        message = "the queue is full of images to be edited; ask again later"
        raise ApiError(429, message, code="queue_full", retry_after=_RETRY_SECONDS)
