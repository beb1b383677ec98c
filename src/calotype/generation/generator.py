"""What every front end asks of whatever makes images."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from calotype.cascade.results import Preview


class Plan(Protocol):
    """Images that are made together, checked: one caption and one seed each."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        ...

    def rows(self, rows: slice) -> Self:
        """The plan of some of the images."""
        ...


P = TypeVar("P", bound=Plan)


class ImageGenerator(Protocol[P]):
    """A loaded model that makes images of captions.

    `group` is how many images are made, and held in memory, at a time.
    """

    group: int

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> P:
        """What is to be made; every error comes here, and nothing is computed."""
        ...

    def generate(self, plan: P) -> Generator[Preview, None, list[np.ndarray]]:
        """The images of a plan, (H, W, 3) uint8, one preview a step; closing it cancels."""
        ...

    def recipe(self, plan: P, row: int) -> dict[str, Any]:
        """All that is needed to make an image of a plan again, as plain JSON data."""
        ...
