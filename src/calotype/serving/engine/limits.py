"""How many rows a network call has: as memory allows, and as a step of 0.3 s holds."""

from __future__ import annotations

import math

import torch

from calotype.serving.engine.strand import Call

STEP_SECONDS = 0.3
_PIXELS = {"cpu": 2 * 1024 * 1024}  # of a call
_GPU_PIXELS = 16 * 1024 * 1024
_INSIDE = 4  # calls' worth of pixels are held by large stages together
_RECOVERY = 1.02  # a call that held is made so much larger after one that did not
_MOST_ROWS = 256
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
        return 1 if seconds is None else max(1, min(memory, int(STEP_SECONDS / seconds)))

    def learn(self, kind: Kind, rows: int, seconds: float) -> None:
        """A call took so long."""
        if (smaller := self._smaller.get(kind[0])) is not None:
            self._smaller[kind[0]] = min(self._pixels, math.ceil(smaller * _RECOVERY))
        each, known = seconds / rows, self._seconds.get(kind)
        if known is not None:
            weight = _FASTER if each < known else _SLOWER
            each = known + weight * (each - known)
        self._seconds[kind] = each

    def halve(self, kind: Kind, rows: int) -> None:
        """A call of so many rows found too little memory."""
        network, shape = kind
        self._smaller[network] = max(1, rows // 2) * int(shape[-1] * shape[-2])

    def forget(self, networks: set[int]) -> None:
        """Networks are gone; others may be in their place."""
        for network in networks:
            self._smaller.pop(network, None)
        self._seconds = {k: v for k, v in self._seconds.items() if k[0] not in networks}
