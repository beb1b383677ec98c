"""What every front end asks of whatever makes images."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from calotype.cascade.results import Preview


class Plan(Protocol):
    """Images that are made together, checked: one caption and one seed each."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""

    def rows(self, rows: slice) -> Self:
        """The plan of some of the images."""


@dataclass(frozen=True)
class Made:
    """A finished image, (H, W, 3) uint8, and all that makes it again, as plain JSON data."""

    pixels: np.ndarray
    recipe: dict[str, Any]


P = TypeVar("P", bound=Plan)


class ImageGenerator(Protocol[P]):
    """A loaded model that makes images of captions.

    `group` is how many images are made, and held in memory, at a time.
    """

    group: int

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> P:
        """What is to be made; every error comes here, and nothing is computed."""

    def generate(self, plan: P) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, one preview a step; closing it cancels."""

    def recipe(self, plan: P, row: int) -> dict[str, Any]:
        """The recipe that an image of a plan will have, as far as it is known beforehand."""


class StagedGenerator(ImageGenerator[P], Protocol):
    """One whose first stage can be looked at before the others enlarge what it made."""

    def begin(self, plan: P) -> Generator[Preview, None, Tensor]:
        """The images of the first stage alone, (B, 3, h, w) in [-1, 1]."""

    def finish(self, plan: P, images: Tensor) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, whose first stage made `images`."""
