"""One image's work in a greenlet: it runs until it waits for something, and goes on when told.

All greenlets of a thread have one grad mode and one autocast state, which `torch.no_grad` saves and
restores: what one saves another might restore. The thread of the loop therefore has gradients off
for good, so that whatever is restored is the same; autocast is entered and left within the call of
a network, where nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import greenlet
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.cascade.timesteps import NetworkOutput
from calotype.conditioning import Conditioning


class Left(BaseException):
    """Thrown into an image's work to end it; no `except Exception` on the way holds it up."""


@dataclass(eq=False)
class Call:
    """A network call that waits for its answer; see `cascade.network_call.Answer`."""

    stage: Stage
    cond: Conditioning
    z: Tensor
    logsnr: Tensor


@dataclass(frozen=True)
class Gate:
    """An image that waits to enter a stage, the number `place` of those it has ahead."""

    place: int


class Strand:
    """A function that may wait, suspended and resumed by the thread that made it.

    Args:
        work: called with the strand, whose `wait` it may call from any depth.
    """

    def __init__(self, work: Callable[[Strand], None]) -> None:
        self._greenlet: Any = greenlet.greenlet(work)
        self._loop: Any = greenlet.getcurrent()

    def wait(self, what: Call | Gate) -> Any:
        """Suspend the work, within it; returns what `go` is given."""
        return self._loop.switch(what)

    def answer(self, stage: Stage, cond: Conditioning, z: Tensor, logsnr: Tensor) -> NetworkOutput:
        """A network's answer, within the work: an `Answer`."""
        output: NetworkOutput = self.wait(Call(stage, cond, z, logsnr))
        return output

    def go(self, *answer: Any) -> Call | Gate | None:
        """Go on: what the work waits for next, or None once it has ended; what it raises."""
        waits: Call | Gate | None = self._greenlet.switch(*answer or (self,))
        return waits

    def throw(self, error: BaseException) -> Call | Gate | None:
        """Go on by raising an error where the work waits; returns and raises as `go`."""
        waits: Call | Gate | None = self._greenlet.throw(error)
        return waits

    def leave(self) -> None:
        """End the work where it waits; what it holds is let go."""
        try:
            self.throw(Left())
        except Left:
            return
