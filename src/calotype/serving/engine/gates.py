"""Gates of large stages: images wait before them while enough for full calls are inside.

What a stage of 1024x1024 holds of an image is a hundred megabytes; images that would only wait for
those before them hold nothing yet, and the oldest are finished first.
"""

from __future__ import annotations

import torch

from calotype.serving.engine.image import Image
from calotype.serving.engine.limits import Limits

_FREE_PIXELS = 512 * 512

Key = tuple[int, tuple[int, int]]


class Gates:
    """Which images are inside which stages, and which wait.

    Args:
        limits: how many rows make a full call.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[int, tuple[Image, int]] = {}
        self._inside: dict[int, Key] = {}

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
            key = (id(image.model), image.ahead[place].size)
            if self._has_room(image, place, key):
                del self._waiting[age]
                self._inside[age] = key
                return image
        return None

    def _has_room(self, image: Image, place: int, key: Key) -> bool:
        height, width = image.ahead[place].size
        inside = sum(other == key for other in self._inside.values())
        if height * width <= _FREE_PIXELS or inside == 0:
            return True
        loaded = image.model.loaded
        assert loaded is not None
        resolution = image.ahead[place].resolution
        network = next(
            stage.network
            for stage in loaded.cascade.stages
            if stage.config.resolution == resolution
        )
        rows = self.limits.rows((id(network), torch.Size((3, height, width))))
        most = rows // image.ahead[place].rows
        if self.limits.most_images is not None:
            most = min(most, self.limits.most_images)
        return inside < max(1, most)
