"""How the loss of a task is computed by several processes: copies (DDP) or shards (FSDP2).

Each process gets some rows of a batch; gradients are those of the mean loss over all rows. Both
wrappers average over processes, so losses are multiplied by their number beforehand.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.training.distributed import ALONE, Group
from calotype.training.shards import distribute_like, full_tensor
from calotype.training.task import AnyTask, Embedded, Inputs


class TaskLoss(nn.Module):
    """A task's `losses`, or `embed`, as a module: what the wrappers of torch.distributed take."""

    def __init__(self, task: AnyTask) -> None:
        super().__init__()
        self.model = task.model
        self._call = cast(Any, task).embed if task.coupled else task.losses

    def forward(self, inputs: Inputs) -> Tensor | Embedded:
        """As `Task.losses`, or as `CoupledTask.embed`."""
        return cast(Tensor | Embedded, self._call(inputs))


class SingleProcess:
    """One process that holds everything."""

    group: Group = ALONE
    sharded = False

    def __init__(self, task: AnyTask) -> None:
        self._loss: Any = TaskLoss(task)

    def losses(self, inputs: Inputs) -> Tensor:
        """Training loss of each of this process's rows, (B,)."""
        losses: Tensor = self._loss(inputs)
        return losses

    def embed(self, inputs: Inputs) -> Embedded:
        """Embeddings of some of this process's rows, of a `CoupledTask`."""
        return Embedded(*self._loss(inputs))

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        return nullcontext()

    def gather_model(self, average: nn.Module) -> nn.Module:
        """The averaged model, whole; on processes other than the first it may have no weights."""
        return average


class DDP(SingleProcess):
    """A copy of the model on every process (DistributedDataParallel).

    Args:
        task: the same weights on every process.
        group: the processes.
    """

    def __init__(self, task: AnyTask, group: Group) -> None:
        from torch.nn.parallel import DistributedDataParallel

        super().__init__(task)
        self.group = group
        device = next(task.model.parameters()).device
        # Weights used through `expand` get gradients with other strides, to no harm.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its name is about to change
            self._loss = DistributedDataParallel(
                self._loss,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,  # `TrainState.average_buffers` does it where they change
                gradient_as_bucket_view=True,
            )

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        return nullcontext() if last else self._loss.no_sync()


class FSDP(SingleProcess):
    """Weights, gradients, averages and moments sharded over the processes (FSDP2).

    Blocks are gathered one at a time, what is outside of them at the root.

    Args:
        task: the same weights on every process; they become shards.
        average: of the model's weights; its weights become shards, too.
        group: the processes.
    """

    sharded = True

    def __init__(self, task: AnyTask, average: nn.Module, group: Group) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(task)
        model = task.model
        self.group = group
        # Kept without weights, to put gathered ones into.
        self._skeleton = copy.deepcopy(average).to("meta")
        mesh = init_device_mesh(next(model.parameters()).device.type, (group.world_size,))
        for parameter in model.parameters():  # FSDP2 takes no channels_last weights
            parameter.data = parameter.data.contiguous()
        for module in reversed([*model.modules()]):  # units in a unit before it
            if isinstance(module, task.shard_units):
                fully_shard(module, mesh=mesh)
        fully_shard(self._loss, mesh=mesh)
        _spread_average(average, model)

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        self._loss.set_requires_gradient_sync(last)
        return nullcontext()

    @torch.no_grad()
    def gather_model(self, average: nn.Module) -> nn.Module:
        """The averaged model on rank 0; the others help, and keep no weights."""
        tensors = {}
        for name, tensor in average.state_dict().items():
            full = full_tensor(tensor)
            if self.group.is_rank_zero:
                layout = torch.channels_last if full.ndim == 4 else torch.contiguous_format
                tensors[name] = full.clone(memory_format=layout)
        whole_model = copy.deepcopy(self._skeleton)
        if self.group.is_rank_zero:
            whole_model.load_state_dict(tensors, assign=True)
        return whole_model.requires_grad_(False).eval()


def _spread_average(average: nn.Module, model: nn.Module) -> None:
    for name, like in model.named_parameters():
        holder, _, own = name.rpartition(".")
        module = average.get_submodule(holder)
        spread = distribute_like(module.get_parameter(own).data.contiguous(), like.detach())
        setattr(module, own, nn.Parameter(spread, requires_grad=False))
