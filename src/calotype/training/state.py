"""What changes while a task is trained, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError
from calotype.training.distributed import Group
from calotype.training.ema import EMA
from calotype.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from calotype.training.parallel import DDP, FSDP, SingleProcess
from calotype.training.posthoc_ema import PosthocAverages
from calotype.training.shards import spread_like
from calotype.training.spread_adafactor import SpreadAdafactor
from calotype.training.task import AnyTask

RECENT_LOSSES = 256


@dataclass
class TrainState:
    """One task in training.

    Args:
        task: whose model is trained.
        ema: their average.
        optimizer: with its moments.
        images_seen: images this stage has been trained on.
        data_offset: images passed over by rewinds; the position in the data is the sum of both.
        decayed: whether any step used a decaying learning rate.
        skipped: steps skipped for numbers that were not finite.
        skipped_in_row: the same, since the last good step.
        rewinds: how often a loss spike sent the run back.
        recent_losses: of the last good steps, for finding spikes.
        posthoc: averages whose length is chosen after training, or None.
        parallel: computes losses, alone or with other processes.
    """

    task: AnyTask
    ema: EMA
    optimizer: torch.optim.Optimizer
    images_seen: int = 0
    data_offset: int = 0
    decayed: bool = False
    skipped: int = 0
    skipped_in_row: int = 0
    rewinds: int = 0
    recent_losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_LOSSES))
    posthoc: PosthocAverages | None = None
    parallel: SingleProcess = field(init=False)

    def __post_init__(self) -> None:
        """One process, until `spread_over` says otherwise."""
        self.parallel = SingleProcess(self.task)

    @property
    def position(self) -> int:
        """Place in the endless stream of images."""
        return self.images_seen + self.data_offset

    @property
    def model(self) -> nn.Module:
        """The weights that are trained."""
        return self.task.model

    def averaged_model(self) -> nn.Module:
        """The model with averaged weights, for validation, previews and export.

        Where it is spread over processes all of them call this, and the first one gets it; that
        of the others has no weights.
        """
        return self.parallel.gathered(self.ema.averaged())


_COUNTERS = ("images_seen", "data_offset", "decayed", "skipped", "skipped_in_row", "rewinds")


def new_state(task: AnyTask) -> TrainState:
    """A task before its first step."""
    config = task.config
    ema = EMA(task.model, halflife_images=config.ema_halflife_images)
    posthoc = PosthocAverages(task.model) if config.posthoc_ema_images > 0 else None
    optimizer = build_optimizer(task.model, config.optimizer)
    return TrainState(task, ema, optimizer, posthoc=posthoc)


def spread_over(state: TrainState, group: Group, *, sharded: bool) -> None:
    """Train a new state with other processes from here on.

    Args:
        state: with the same weights on every process, and no step taken.
        group: the processes; one alone changes nothing.
        sharded: spread weights and moments over the processes; else each has a copy.
    """
    if group.alone:
        return
    if not sharded:
        state.parallel = DDP(state.task, group)
        return
    state.parallel = FSDP(state.task, state.ema.averaged(), group)
    state.ema.rebind()
    state.optimizer = build_optimizer(state.model, state.task.config.optimizer)
    if isinstance(state.optimizer, torch.optim.Adafactor):
        state.optimizer = SpreadAdafactor(state.optimizer.param_groups)
    if state.posthoc is not None:
        state.posthoc = PosthocAverages(state.model)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _counters_of(state: TrainState) -> dict[str, Any]:
    numbers = {name: getattr(state, name) for name in _COUNTERS}
    return {**numbers, "recent_losses": list(state.recent_losses)}


@dataclass(frozen=True)
class Snapshot:
    """A state that training does not change any more.

    Args:
        numbers: counters, for JSON.
        tensors: by file name.
        averaged: the model with averaged weights.
    """

    numbers: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    averaged: nn.Module


def snapshot(state: TrainState) -> Snapshot:
    """Copy a state, so that it can be written while training goes on.

    Of a state that is spread over processes, which all call this, the tensors are not copied.
    """
    averaged = state.averaged_model()
    if state.parallel.spread:
        return Snapshot(_counters_of(state), tensors_of(state), averaged)
    averaged = copy.deepcopy(averaged)
    tensors = tensors_of(state)
    del tensors["ema.safetensors"]
    copied = {name: _copied(own) for name, own in tensors.items()}
    copied["ema.safetensors"] = dict(averaged.state_dict())
    return Snapshot(_counters_of(state), copied, averaged)


def tensors_of(state: TrainState) -> dict[str, dict[str, Tensor]]:
    """All tensors of a state by the name of their file; training goes on changing them."""
    tensors = {
        "weights.safetensors": dict(state.model.state_dict()),
        "ema.safetensors": dict(state.ema.averaged().state_dict()),
        "optimizer.safetensors": optimizer_tensors(state.optimizer),
    }
    return tensors if state.posthoc is None else tensors | state.posthoc.tensors()


def restore(
    state: TrainState, saved: dict[str, dict[str, Tensor]], numbers: dict[str, Any]
) -> None:
    """Put back what `snapshot` gave.

    Raises:
        CalotypeError: the checkpoint belongs to another recipe.
    """
    copy_weights(state.model, saved["weights.safetensors"])
    copy_weights(state.ema.averaged(), saved["ema.safetensors"])
    moments = _spread_moments(state.optimizer, saved["optimizer.safetensors"])
    restore_optimizer(state.optimizer, moments)
    for name in _COUNTERS:
        setattr(state, name, numbers[name])
    if state.posthoc is not None:
        state.posthoc.restore(saved, state.images_seen)
    state.recent_losses.clear()
    state.recent_losses.extend(numbers["recent_losses"])


def _spread_moments(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Moments spread as their parameters are; `restore_optimizer` checks names and shapes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    spread = {}
    for key, value in saved.items():
        number = key.partition(".")[0]
        known = number.isdecimal() and int(number) < len(parameters)
        like = parameters[int(number)] if known else value
        spread[key] = spread_like(value, like) if like.shape == value.shape else value
    return spread


@torch.no_grad()
def copy_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy named tensors into a model, keeping the model's memory layout and number type.

    Raises:
        CalotypeError: names or shapes differ.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        where = "missing in" if name in own else "not part of this network but in"
        raise CalotypeError(f"{name} is {where} the saved weights; expected the same recipe")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise CalotypeError(
                f"got {name} of shape {tuple(weights[name].shape)}; expected "
                f"{tuple(value.shape)}: the saved weights belong to another recipe"
            )
        value.copy_(spread_like(weights[name], value))
