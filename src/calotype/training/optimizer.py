"""Optimizers, and their state as named tensors that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from calotype.config.optimizer import OptimizerConfig
from calotype.errors import CalotypeError
from calotype.training.shards import distribute_like, full_tensor, is_dtensor

_TEXT = "network.text."
"""Names of a stage's weights that are an ADM network's own text modules begin so."""


class ShardedAdafactor(torch.optim.Adafactor):
    """`torch.optim.Adafactor` whose parameters may be sharded over processes, which all step.

    Its factors are means over rows and columns of a whole weight, and its step sizes norms of it,
    so each weight and its gradient are gathered for the moment of their update, one after the
    other. Every process does the same arithmetic and keeps its shard of the weight; the factors are
    small, and whole on every process.
    """

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
        settings = {name: group[name] for name in ("lr", "beta2_decay", "eps", "d", "weight_decay")}
        alone: Any = torch.optim.Adafactor([twin], **settings)
        if self.state[parameter]:
            kept = self.state[parameter].items()
            alone.state[twin] = {name: full_tensor(value) for name, value in kept}
        alone.step()
        self.state[parameter] = alone.state[twin]
        parameter.copy_(distribute_like(twin.detach(), parameter))


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (fused: three times the speed of the default on CPUs) or Adafactor.

    Norms, biases and other vectors are not decayed. Groups have their fraction of the rate as
    "fraction".

    Args:
        model: its weights that require gradients are optimized; they may be sharded over processes.
        config: of the optimizer.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            decay = config.weight_decay if p.ndim > 1 else 0.0
            fraction = config.text_rate if name.startswith(_TEXT) else 1.0
            groups.setdefault((decay, fraction), []).append(p)
    moved = [p for group in groups.values() for p in group]
    ordered = [
        {"params": groups[key], "weight_decay": key[0], "fraction": key[1]}
        for key in sorted(groups, reverse=True)
    ]
    if config.kind == "adafactor":
        kind = ShardedAdafactor if any(map(is_dtensor, moved)) else torch.optim.Adafactor
        return kind(ordered, lr=config.learning_rate)
    return torch.optim.AdamW(
        ordered, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate; every group has its fraction of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("fraction", 1.0)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state as flat named tensors: "<parameter number>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned.

    Raises:
        CalotypeError: the tensors belong to another network or optimizer.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdigit() or int(number) >= len(parameters):
            raise CalotypeError(
                f"got optimizer state {key!r} for {len(parameters)} parameters; "
                "expected the state of the same recipe"
            )
        state.setdefault(int(number), {})[name] = _like(value, parameters[int(number)])
    saved = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    # Fused AdamW goes through memory in order: moments must lie in it as the parameter does
    # (channels_last), or they would be applied to other weights without an error.
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(distribute_like(value, parameter))
