"""One image that is worked on: its strand, what it waits for, how far it is, what it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from calotype.cascade.results import drain
from calotype.generation.generator import Made
from calotype.serving.engine.ahead import Ahead
from calotype.serving.engine.orders import Order
from calotype.serving.engine.sizes import cut
from calotype.serving.engine.strand import Gate, Strand
from calotype.serving.engine.tasks import Task

if TYPE_CHECKING:
    from calotype.cascade.results import Preview
    from calotype.serving.engine.shelf import Model


class Finish(BaseException):
    """Thrown into an image's work: finish now, with the present estimate."""


@dataclass(frozen=True)
class Look:
    """A preview to be shown: pixels, (H, W, 3 or 4) uint8, and what is said of them."""

    pixels: np.ndarray
    head: dict[str, Any]


class Sink(Protocol):
    """Where messages about images go; nothing of it takes long."""

    def tell(self, head: dict[str, Any]) -> None:
        """A message without pixels."""

    def show(self, image: Image, look: Look) -> None:
        """A preview, to be encoded."""

    def finish(self, image: Image) -> None:
        """A finished image, to be encoded: the last word on it."""

    def end(self, image: Image, head: dict[str, Any]) -> None:
        """The last word on an image that is not finished."""


@dataclass(eq=False)
class Image:
    """An image.

    Args:
        order: what the front ordered.
        model: that makes it.
        age: images are numbered as they come.
        sink: where it tells how far it is.
    """

    order: Order
    model: Model
    age: int
    sink: Sink
    strand: Strand | None = None
    ahead: list[Ahead] = field(default_factory=list)
    place: int = 0
    done: int = 0
    most_rows: int = 1
    interrupted: bool = False
    began: float = 0.0
    made: Made | None = None
    _latest: Tensor | None = None
    _task: Task | None = None

    def begin(self, open_task: Callable[[Strand], Task]) -> Strand:
        """The strand that makes it; `made` is there once that has ended."""
        self.began = time.monotonic()
        self.strand = Strand(lambda strand: self._work(strand, open_task))
        return self.strand

    @property
    def calls(self) -> int:
        """Network calls in all."""
        return sum(one.calls for one in self.ahead)

    @property
    def can_finish(self) -> bool:
        """Whether there is an estimate to finish with."""
        return self._latest is not None

    def _work(self, strand: Strand, open_task: Callable[[Strand], Task]) -> None:
        task = self._task = open_task(strand)
        self.ahead = task.ahead
        try:
            strand.wait(Gate(0))
            made = drain(task.generate(), lambda preview: self._show(strand, preview))
        except Finish:
            assert self._latest is not None
            pixels = cut(task.look(self._latest, whole=True), task.size)
            made = Made(pixels, {**task.recipe(), "interrupted": True})
        batch = {"most_rows": self.most_rows, "exact": self.order.alone}
        self.made = Made(np.ascontiguousarray(made.pixels), {**made.recipe, "batch": batch})
        self._latest = self._task = None

    def _show(self, strand: Strand, preview: Preview) -> None:
        """Tell of a step; between stages, wait to enter the next one."""
        state, place = preview.state, min(self.place, len(self.ahead) - 1)
        self._latest = state.estimate.x_hat
        finished = state.index == preview.steps
        head = {
            "id": self.order.id,
            "stage": place,
            "resolution": preview.resolution,
            "step": state.index,
            "steps": preview.steps,
        }
        progress = {"done": min(self.done, self.calls), "calls": self.calls}
        self.sink.tell({"op": "step", **head, **progress})
        index = self._preview_index(place, state.index, preview.steps)
        if index is not None and self._task is not None:
            final = finished and place == len(self.ahead) - 1
            look = self._look(self._task, self._latest)
            self.sink.show(self, Look(look, {**head, "index": index, "final": final}))
        if self.interrupted:
            raise Finish
        if finished and self.place + 1 < len(self.ahead):
            self.place += 1
            strand.wait(Gate(self.place))

    def _preview_index(self, place: int, step: int, steps: int) -> int | None:
        """Which preview is due after a step, if any."""
        looks = self.order.looks
        if looks.when == "steps":
            return sum(one.steps + 1 for one in self.ahead[:place]) + step
        if looks.when == "none":
            return None
        half = math.ceil(steps / 2)
        return {(0, half): 0, (0, steps): 1, (1, steps): 2}.get((place, step))

    def _look(self, task: Task, x_hat: Tensor) -> np.ndarray:
        looks = self.order.looks
        pixels = task.look(x_hat, whole=False)
        if looks.size is not None:
            return cut(pixels, looks.size)
        height, width = pixels.shape[:2]
        scale = min(1.0, looks.side / max(height, width))
        return cut(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
