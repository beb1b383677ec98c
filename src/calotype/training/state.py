"""What changes while a task is trained: counters, and named parts that a checkpoint keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError
from calotype.training.distributed import ALONE, Group
from calotype.training.ema import EMA
from calotype.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from calotype.training.parallel import DDP, FSDP, SingleProcess
from calotype.training.posthoc_ema import LENGTHS, PowerFunctionEMA
from calotype.training.shards import copy_weights
from calotype.training.task import AnyTask


@dataclass(eq=False)
class Counters:
    """The numbers of a task in training; a checkpoint keeps every field, in JSON by its name.

    Args:
        images_seen: images this stage has been trained on.
        data_offset: images passed over by rewinds; the position in the data is the sum of both.
        decay_start: whether the last step came to where the learning rate begins to decay.
        decayed: whether any step used a decaying learning rate.
        skipped: steps skipped for numbers that were not finite.
        skipped_in_row: the same, since the last good step.
        rewinds: how often a loss spike sent the run back.
        recent_losses: of the last good steps, for finding spikes.
    """

    images_seen: int = 0
    data_offset: int = 0
    decay_start: bool = False
    decayed: bool = False
    skipped: int = 0
    skipped_in_row: int = 0
    rewinds: int = 0
    recent_losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """What a checkpoint keeps in one file: named tensors, and how they are put back."""

    state_dict: Callable[[], Mapping[str, Tensor]]
    load_state_dict: Callable[[Mapping[str, Tensor]], object]


class TrainState(Counters):
    """One task in training.

    Args:
        task: the same weights on every process, and no step taken.
        group: the processes that train it.
        sharded: shard weights and moments over the processes; else each has a copy.
        offset: images that earlier stages were trained on.

    `ema` averages the weights, `optimizer` moves them, `posthoc` are averages whose length is
    chosen after training, if any; `parallel` computes losses, alone or with other processes.
    """

    def __init__(
        self, task: AnyTask, group: Group = ALONE, *, sharded: bool = False, offset: int = 0
    ) -> None:
        super().__init__()
        config = task.config
        self.task = task
        self.offset = offset
        self.ema = EMA(task.model, halflife_images=config.ema_halflife_images)
        self.parallel = SingleProcess(task)
        if not group.alone:
            shards = partial(FSDP, task, self.ema.averaged(), group)
            self.parallel = shards() if sharded else DDP(task, group)
        self.optimizer = build_optimizer(task.model, config.optimizer)
        lengths = LENGTHS if config.posthoc_ema_images > 0 else ()
        self.posthoc = tuple(PowerFunctionEMA(task.model, length=each) for each in lengths)

    @property
    def model(self) -> nn.Module:
        """The weights that are trained."""
        return self.task.model

    @property
    def position(self) -> int:
        """Place in the endless stream of images."""
        return self.images_seen + self.data_offset

    @property
    def images(self) -> int:
        """Images over all stages so far."""
        return self.offset + self.images_seen

    @property
    def end(self) -> int:
        """Images over all stages when this one is finished."""
        return self.offset + self.task.config.total_images

    @property
    def finished(self) -> bool:
        """Whether the task has seen all its images."""
        return self.images >= self.end

    @property
    def parts(self) -> dict[str, Part]:
        """What a checkpoint keeps beside the counters, by file name."""
        model, average, optimizer = self.model, self.ema.averaged(), self.optimizer
        parts = {
            "weights": Part(model.state_dict, partial(copy_weights, model)),
            "ema": Part(average.state_dict, partial(copy_weights, average)),
            "optimizer": Part(
                partial(optimizer_tensors, optimizer), partial(restore_optimizer, optimizer)
            ),
        }
        for ema in self.posthoc:
            parts[f"ema-{ema.length:.3f}"] = Part(ema.state_dict, ema.load_state_dict)
        memory = self.task.memory
        if memory:
            parts["memory"] = Part(lambda: memory, partial(_copy_into, memory))
        return {f"{name}.safetensors": part for name, part in parts.items()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by the name of their file; training goes on changing them."""
        return {name: dict(part.state_dict()) for name, part in self.parts.items()}

    def numbers(self) -> dict[str, Any]:
        """A copy of the counters, for JSON."""
        return dataclasses.asdict(self)

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        """Put back what `tensors` and `numbers` gave.

        Raises:
            CalotypeError: they belong to another recipe.
        """
        for name, part in self.parts.items():
            if name not in tensors:
                raise CalotypeError(f"the checkpoint has no {name}; expected the same recipe")
            part.load_state_dict(tensors[name])
        for counter in dataclasses.fields(Counters):
            setattr(self, counter.name, numbers[counter.name])

    @torch.no_grad()
    def average_buffers(self) -> None:
        """Give all processes the mean of each buffer that the step has changed on any of them.

        Means over the rows of a process, and what runs after them, become means over all rows.
        """
        group = self.parallel.group
        pairs = list(zip(self.model.buffers(), self.ema.averaged().buffers(), strict=True))
        if group.alone or not pairs:
            return
        moved = group.all_reduce(torch.tensor([float(not torch.equal(*pair)) for pair in pairs]))
        for (buffer, _), on_some in zip(pairs, moved.tolist(), strict=True):
            if on_some:
                buffer.copy_(group.all_reduce(buffer.double().cpu()) / group.world_size)

    def averaged_model(self) -> nn.Module:
        """The model with averaged weights, for validation, previews and export.

        Where it is sharded all processes call this, and rank 0 gets it; that
        of the others has no weights.
        """
        return self.parallel.gather_model(self.ema.averaged())


def _copy_into(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in own.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise CalotypeError(f"the checkpoint has another {name}; expected the same recipe")
        tensor.copy_(tensors[name])
