"""One optimizer step: the only place where weights move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calotype.data.batch import Batch
from calotype.training.coupled import coupled_backward, of_whole_batch
from calotype.training.learning_rate import decay_start, learning_rate
from calotype.training.optimizer import set_learning_rate
from calotype.training.randomness import seed_networks
from calotype.training.shards import full_tensor
from calotype.training.state import TrainState
from calotype.training.task import Inputs, Numbers


@dataclass(frozen=True)
class StepMetrics:
    """What one step says.

    Args:
        loss: mean over the batch of all processes.
        grad_norm: before clipping.
        learning_rate: of the step.
        skipped: loss or gradient was not finite, and no weight was moved.
        losses: of each image, (B,) float64 on the CPU; `loss` is their mean.
        more: what the task says of the step, for the log.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    skipped: bool
    losses: Tensor
    more: Mapping[str, Any]


def train_step(state: TrainState, batch: Batch) -> StepMetrics:
    """Train on one batch; everything random is a function of seed and position.

    Random numbers are made for the whole batch, and each process takes those of its rows: how many
    processes there are changes nothing but rounding (and dropout inside networks, whose numbers
    are each process's own).

    Args:
        state: moved by one step, unless loss or gradient is not finite.
        batch: up to `config.batch_size` images, or this process's part of them.
    """
    task, config, images = state.task, state.task.config, batch.images
    numbers = task.random_numbers(batch, state.position)
    inputs = task.inputs(batch, local_numbers(numbers, batch))
    state.optimizer.zero_grad(set_to_none=True)
    losses = of_whole_batch(accumulate(state, batch, inputs), batch, state.parallel.group)
    loss = float(losses.sum()) / images
    norm = _clip(state.model, config.optimizer.grad_clip_norm)
    rate = learning_rate(config.optimizer, state.images_seen, config.total_images)
    finite = state.parallel.group.all(math.isfinite(loss) and math.isfinite(norm))
    state.decayed |= state.images_seen > decay_start(config.optimizer, config.total_images)
    state.images_seen += images
    if finite:
        set_learning_rate(state.optimizer, rate)
        state.optimizer.step()
        state.average_buffers()
        state.ema.update(batch_size=images, images_seen=state.images_seen)
        task.remember(losses, numbers)
    else:
        state.ema.return_buffers()
    for ema in state.posthoc:  # after a skipped step, too: time goes on with the same weights
        ema.update(batch_size=images, images_seen=state.images_seen)
    return StepMetrics(
        loss=loss,
        grad_norm=norm,
        learning_rate=rate,
        skipped=not finite,
        losses=losses,
        more=task.log(losses, numbers),
    )


def local_numbers(numbers: Numbers, batch: Batch) -> Numbers:
    """The numbers of this process's rows; rows that do not count get any."""
    if batch.share is None:
        return numbers
    return numbers[torch.tensor(batch.share.rows).clamp_max(batch.share.total - 1)]


def accumulate(state: TrainState, batch: Batch, inputs: Inputs) -> Tensor:
    """Gradients of the mean loss, in as many parts as the recipe says.

    Returns:
        The loss of each of this process's images, (B,) float64 on the CPU.
    """
    config, parallel = state.task.config, state.parallel
    count, processes = len(inputs), parallel.group.world_size
    size = math.ceil(count / min(config.optimizer.accumulation, count))
    parts = [inputs[start : start + size] for start in range(0, count, size)]

    def seed(number: int) -> None:
        part = number + len(parts) * parallel.group.rank
        seed_networks(config.seed, state.position, part=part)

    if state.task.coupled:
        return coupled_backward(state.task, parallel, batch, parts, seed)
    found = list[Tensor]()
    for number, part in enumerate(parts):
        seed(number)
        with parallel.part(last=number + 1 == len(parts)):
            losses = parallel.losses(part)
            if batch.weights is not None:
                losses = losses * batch.weights[number * size :][: len(part)].to(losses)
            # The mean over all rows; gradients are averaged over processes, not added.
            mean = losses.sum() / batch.images
            torch.autograd.backward(mean * processes if processes > 1 else mean)
        found.append(losses.detach().double().cpu())
    return torch.cat(found)


def _clip(model: nn.Module, largest: float | None) -> float:
    parameters = [p for p in model.parameters() if p.grad is not None]
    limit = math.inf if largest is None else largest
    return float(full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)))
