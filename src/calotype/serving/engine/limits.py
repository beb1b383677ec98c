"""How many rows a network call has: as memory allows, and as a step of 0.3 s holds.

Large images may take longer together than one after another, where a cache holds one of them but
not two. That is measured: a call in so many has one image, or several where one at a time is
quicker, to find out.
"""

from __future__ import annotations

import math
from collections import Counter

import torch

from calotype.serving.engine.strand import Call

STEP_SECONDS = 0.3
_PIXELS = {"cpu": 2 * 1024 * 1024}  # of a call
_GPU_PIXELS = 16 * 1024 * 1024
_INSIDE = 4  # calls' worth of pixels are held by large stages together
_RECOVERY = 1.02  # a call that held is made so much larger after one that did not
_MOST_ROWS = 256
_TRIED = 32  # a call of so many is made in the way that has been slower
_FASTER, _SLOWER = 0.5, 0.2  # weights of a new measurement: a first call is slow and says little

Kind = tuple[int, torch.Size]
"""What calls are measured by: their network, and the shape of a row."""


class Limits:
    """What is known of the time and memory of network calls.

    Args:
        most_images: of a call; None = as many as hold.
        device: of the networks: a GPU has room for more to begin with.

    Attributes:
        inside_pixels: of images inside large stages, all together.
    """

    def __init__(self, most_images: int | None = None, device: str = "cpu") -> None:
        self.most_images = most_images
        self._pixels = _PIXELS.get(device, _GPU_PIXELS)
        self.inside_pixels = _INSIDE * self._pixels
        self._smaller: dict[int, int] = {}
        self._seconds: dict[Kind, float] = {}
        self._ways: dict[Kind, dict[bool, float]] = {}
        self._calls: Counter[Kind] = Counter()

    @staticmethod
    def kind(call: Call) -> Kind:
        """What a call is measured by."""
        return id(call.stage.network), call.z.shape[1:]

    def rows(self, kind: Kind) -> int:
        """Rows of a call, at least one; nothing has been measured: as many as one image has."""
        network, shape = kind
        pixels = self._smaller.get(network, self._pixels)
        memory = min(_MOST_ROWS, pixels // (shape[-1] * shape[-2]))
        seconds = self._seconds.get(kind)
        if seconds is None or not self._is_better_together(kind):
            return 1
        return max(1, min(memory, int(STEP_SECONDS / seconds)))

    def _is_better_together(self, kind: Kind) -> bool:
        """Whether the next call is to have several images; for one of many, to learn something."""
        ways = self._ways.get(kind, {})
        together = ways.get(True, 0.0) <= ways.get(False, math.inf)
        return together != (self._calls[kind] % _TRIED == 1)

    def learn(self, kind: Kind, rows: int, seconds: float, *, images: int) -> None:
        """A call of so many rows, of so many images, took so long."""
        if (smaller := self._smaller.get(kind[0])) is not None:
            self._smaller[kind[0]] = min(self._pixels, math.ceil(smaller * _RECOVERY))
        each, known = seconds / rows, self._seconds.get(kind)
        if known is not None:  # a first call says nothing of the way
            ways, way = self._ways.setdefault(kind, {}), images > 1
            ways[way] = _blended(ways.get(way), each)
        self._seconds[kind] = _blended(known, each)
        self._calls[kind] += 1

    def halve(self, kind: Kind, rows: int) -> None:
        """A call of so many rows found too little memory."""
        network, shape = kind
        self._smaller[network] = max(1, rows // 2) * int(shape[-1] * shape[-2])

    def forget(self, networks: set[int]) -> None:
        """Networks are gone; others may be in their place."""
        for network in networks:
            self._smaller.pop(network, None)
        for known in (self._seconds, self._ways, self._calls):
            for kind in [kind for kind in known if kind[0] in networks]:
                del known[kind]


def _blended(known: float | None, new: float) -> float:
    """A measurement and what was known before."""
    if known is None:
        return new
    return known + (_FASTER if new < known else _SLOWER) * (new - known)
