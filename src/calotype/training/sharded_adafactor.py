"""Adafactor for weights that are spread over processes.

Its factors are means over rows and columns of a whole weight, and its step sizes norms of it, so
each weight and its gradient are gathered for the moment of their update, one after the other.
Every process does the same arithmetic and keeps its part of the weight; the factors are small, and
whole on every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from calotype.training.shards import distribute_like, full_tensor


class ShardedAdafactor(torch.optim.Adafactor):
    """`torch.optim.Adafactor` whose parameters may be spread over processes, which all step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; closures are not called."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        twin = nn.Parameter(full_tensor(parameter.detach()).clone())
        twin.grad = full_tensor(parameter.grad) if parameter.grad is not None else None
        alone: Any = torch.optim.Adafactor(
            [twin],
            lr=group["lr"],
            beta2_decay=group["beta2_decay"],
            eps=group["eps"],
            d=group["d"],
            weight_decay=group["weight_decay"],
        )
        if self.state[parameter]:
            kept = self.state[parameter].items()
            alone.state[twin] = {name: full_tensor(value) for name, value in kept}
        alone.step()
        self.state[parameter] = alone.state[twin]
        parameter.copy_(distribute_like(twin.detach(), parameter))
