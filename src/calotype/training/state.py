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
from calotype.config import TrainConfig
from calotype.errors import CalotypeError
from calotype.networks.lora import train_adapters
from calotype.training.canvas import canvas_weights, freeze_canvas
from calotype.training.ema import EMA
from calotype.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from calotype.training.posthoc_ema import PosthocAverages
from calotype.training.randomness import seed_networks

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

    @property
    def position(self) -> int:
        """Place in the endless stream of pictures."""
        return self.images_seen + self.data_offset

    def averaged_stage(self) -> Stage:
        """The stage with averaged weights, for drawing and for the cascade."""
        stage = cast(Stage, self.ema.averaged())
        stage.compute_dtype = self.stage.compute_dtype
        return stage


_COUNTERS = ("images_seen", "data_offset", "decayed", "skipped", "skipped_in_row", "rewinds")


def new_state(config: TrainConfig, *, device: str, dtype: torch.dtype) -> TrainState:
    """A stage with initial weights, which depend on the seed and the resolution alone."""
    seed_networks(config.seed, config.stage.resolution, part=-1)
    stage = Stage(config.stage).to(device)
    freeze_canvas(stage, config.canvas)
    slowed = [] if config.canvas is None else canvas_weights(stage)
    if config.lora is not None:  # after it: adapters of the canvas may move
        train_adapters(stage.network, config.lora)
    cast(Any, stage).to(memory_format=torch.channels_last)
    stage.compute_dtype = dtype
    stage.train()
    ema = EMA(stage, halflife_images=config.ema_halflife_images)
    posthoc = PosthocAverages(stage) if config.posthoc_ema_images > 0 else None
    share = 1.0 if config.canvas is None else config.canvas.rate_share
    optimizer = build_optimizer(stage, config.optimizer, slowed=slowed, rate_share=share)
    return TrainState(stage, ema, optimizer, posthoc=posthoc)


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
    """Copy a state, so that it can be written while training goes on."""
    averaged = copy.deepcopy(state.averaged_stage())
    tensors = {
        "weights.safetensors": _copied(state.stage.state_dict()),
        "ema.safetensors": dict(averaged.state_dict()),
        "optimizer.safetensors": _copied(optimizer_tensors(state.optimizer)),
    }
    if state.posthoc is not None:
        tensors |= state.posthoc.tensors()
    return Snapshot(_counters_of(state), tensors, averaged)


def restore(
    state: TrainState, saved: dict[str, dict[str, Tensor]], numbers: dict[str, Any]
) -> None:
    """Put back what `snapshot` gave.

    Raises:
        CalotypeError: the checkpoint belongs to another recipe.
    """
    copy_weights(state.stage, saved["weights.safetensors"])
    copy_weights(state.ema.averaged(), saved["ema.safetensors"])
    restore_optimizer(state.optimizer, saved["optimizer.safetensors"])
    for name in _COUNTERS:
        setattr(state, name, numbers[name])
    if state.posthoc is not None:
        state.posthoc.restore(saved, state.images_seen)
    state.recent_losses.clear()
    state.recent_losses.extend(numbers["recent_losses"])


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
        value.copy_(weights[name])
