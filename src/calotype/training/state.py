"""What changes while a stage is trained, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.cascade.stage import Stage
from calotype.config.recipe import TrainConfig
from calotype.errors import CalotypeError
from calotype.networks.lora import train_adapters
from calotype.training.distributed import Group
from calotype.training.draft_folds import freeze_draft
from calotype.training.ema import EMA
from calotype.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from calotype.training.parallel import Copies, Shards, Whole
from calotype.training.posthoc_ema import PosthocAverages
from calotype.training.randomness import seed_networks
from calotype.training.shards import spread_like
from calotype.training.spread_adafactor import SpreadAdafactor

RECENT_LOSSES = 256


@dataclass
class TrainState:
    """One stage in training.

    Args:
        stage: the weights that are trained.
        ema: their average.
        optimizer: with its moments.
        images_seen: pictures this stage has been trained on.
        data_offset: pictures passed over by rewinds; the position in the data is the sum of both.
        decayed: whether any step used a decaying learning rate.
        skipped: steps skipped for numbers that were not finite.
        skipped_in_row: the same, since the last good step.
        rewinds: how often a loss spike sent the run back.
        recent_losses: of the last good steps, for finding spikes.
        posthoc: averages whose length is chosen after training, or None.
        parallel: computes losses, alone or with other processes.
    """

    stage: Stage
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
    parallel: Whole = field(init=False)

    def __post_init__(self) -> None:
        """One process, until `spread_over` says otherwise."""
        self.parallel = Whole(self.stage)

    @property
    def position(self) -> int:
        """Place in the endless stream of pictures."""
        return self.images_seen + self.data_offset

    def averaged_stage(self) -> Stage:
        """The stage with averaged weights, for drawing and for the cascade.

        Where it is spread over processes all of them call this, and the first one gets it; that
        of the others has no weights.
        """
        stage = self.parallel.gathered(self.ema.averaged())
        stage.compute_dtype = self.stage.compute_dtype
        return stage


_COUNTERS = ("images_seen", "data_offset", "decayed", "skipped", "skipped_in_row", "rewinds")


def new_state(config: TrainConfig, *, device: str, dtype: torch.dtype) -> TrainState:
    """A stage with initial weights, which depend on the seed and the resolution alone."""
    seed_networks(config.seed, config.stage.resolution, part=-1)
    stage = Stage(config.stage).to(device)
    freeze_draft(stage.network)
    if config.lora is not None:  # after it: adapters of the draft may move
        train_adapters(stage.network, config.lora)
    cast(Any, stage).to(memory_format=torch.channels_last)
    stage.compute_dtype = dtype
    stage.train()
    ema = EMA(stage, halflife_images=config.ema_halflife_images)
    posthoc = PosthocAverages(stage) if config.posthoc_ema_images > 0 else None
    return TrainState(stage, ema, build_optimizer(stage, config.optimizer), posthoc=posthoc)


def spread_over(state: TrainState, config: TrainConfig, group: Group, *, sharded: bool) -> None:
    """Train a new state with other processes from here on.

    Args:
        state: with the same weights on every process, and no step taken.
        config: of the stage.
        group: the processes; one alone changes nothing.
        sharded: spread weights and moments over the processes; else each has a copy.
    """
    if group.alone:
        return
    if not sharded:
        state.parallel = Copies(state.stage, group)
        return
    state.parallel = Shards(state.stage, state.ema.averaged(), group)
    state.ema.rebind()
    state.optimizer = build_optimizer(state.stage, config.optimizer)
    if isinstance(state.optimizer, torch.optim.Adafactor):
        state.optimizer = SpreadAdafactor(state.optimizer.param_groups)
    if state.posthoc is not None:
        state.posthoc = PosthocAverages(state.stage)


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
        averaged: the stage with averaged weights.
    """

    numbers: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    averaged: Stage


def snapshot(state: TrainState) -> Snapshot:
    """Copy a state, so that it can be written while training goes on.

    Of a state that is spread over processes, which all call this, the tensors are not copied.
    """
    averaged = state.averaged_stage()
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
        "weights.safetensors": dict(state.stage.state_dict()),
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
    copy_weights(state.stage, saved["weights.safetensors"])
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
