"""Decoded images kept in memory: as many as a limit of bytes allows, for the whole run.

Which images are kept is first come, first kept, and never changes what a batch holds, only how
soon it is there. In a shuffled order each image comes once an epoch, so throwing out old ones
for new (LRU) would never hit; only images of which several crops are cut in a short time are
kept for that time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.data.example import Caption


@dataclass(frozen=True, eq=False)
class Prepared:
    """An example made ready: `image` is (R, R, 4) straight-alpha RGBA at the stage's resolution."""

    key: str
    image: NDArray[np.uint8]
    captions: tuple[Caption, ...]
    label: str | None = None


class ImageCache:
    """Prepared examples by number, within `limit_bytes` and `recent` more."""

    def __init__(self, limit_bytes: int, *, recent: int) -> None:
        self.limit_bytes = limit_bytes
        self.recent = recent
        self._kept: dict[int, Prepared] = {}
        self._kept_bytes = 0
        self._recent: OrderedDict[int, Prepared] = OrderedDict()

    def get(self, index: int) -> Prepared | None:
        """The example, if it is here."""
        found = self._kept.get(index)
        if found is None and (found := self._recent.get(index)) is not None:
            self._recent.move_to_end(index)
        return found

    def put(self, index: int, prepared: Prepared) -> None:
        """Keep the example, for good or for a while."""
        if self._kept_bytes + prepared.image.nbytes <= self.limit_bytes:
            self._kept_bytes += prepared.image.nbytes
            self._kept[index] = prepared
            return
        self._recent[index] = prepared
        while len(self._recent) > self.recent:
            self._recent.popitem(last=False)
