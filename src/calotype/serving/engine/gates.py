"""Gates of large stages: images wait before them while enough for full calls are inside.

What a stage of 1024x1024 holds of an image is a hundred megabytes; images that would only wait for
those before them hold nothing yet, and the oldest are finished first.
"""

from __future__ import annotations

import torch

from calotype.serving.engine.image import Image
from calotype.serving.engine.limits import Limits

_FREE_PIXELS = 512 * 512

Size = tuple[int, int]


class Gates:
    """Which images are inside which stages, and which wait.

    Args:
        limits: how many rows make a full call.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[int, tuple[Image, int]] = {}
        self._inside: dict[int, tuple[int, Size]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, image: Image, place: int) -> None:
        """An image has left its stage and waits to enter the next."""
        self._inside.pop(image.age, None)
        self._waiting[image.age] = (image, place)

    def remove(self, image: Image) -> None:
        """An image is gone."""
        self._inside.pop(image.age, None)
        self._waiting.pop(image.age, None)

    def next(self) -> Image | None:
        """The oldest image that may enter its stage, which it has then."""
        for age in sorted(self._waiting):
            image, place = self._waiting[age]
            size = image.ahead[place].size
            large = size[0] * size[1] > _FREE_PIXELS
            if large and self._inside and not self._holds(size):
                return None  # younger ones wait, too, or it would never enter
            if not large or self._is_wanted(image, place):
                del self._waiting[age]
                if large:
                    self._inside[age] = (id(image.model), size)
                return image
        return None

    def _holds(self, size: Size) -> bool:
        """Whether there is memory for one more image."""
        pixels = sum(height * width for _, (height, width) in self._inside.values())
        return pixels + size[0] * size[1] <= self.limits.inside_pixels

    def _is_wanted(self, image: Image, place: int) -> bool:
        """Whether the images inside an image's stage would leave room in a call for it."""
        ahead, loaded = image.ahead[place], image.model.loaded
        assert loaded is not None
        inside = sum(other == (id(image.model), ahead.size) for other in self._inside.values())
        stages = (one for one in loaded.cascade.stages if one.config.resolution == ahead.resolution)
        kind = (id(next(stages).network), torch.Size((3, *ahead.size)))
        most = self.limits.rows(kind) // ahead.rows
        if self.limits.most_images is not None:
            most = min(most, self.limits.most_images)
        return inside < max(1, most)
