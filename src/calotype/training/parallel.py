"""How the loss of a stage is computed by several processes: copies (DDP) or shards (FSDP2).

Each process gets some rows of a batch; gradients are those of the mean loss over all rows. Both
wrappers average over processes, so losses are multiplied by their number beforehand.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning
from calotype.diffusion import Weighting
from calotype.networks.blocks import Block
from calotype.training.distributed import ALONE, Group
from calotype.training.shards import spread_like, whole


class StageLoss(nn.Module):
    """`Stage.loss` as a module, which is what the wrappers of torch.distributed take."""

    def __init__(self, stage: Stage) -> None:
        """Keep the stage."""
        super().__init__()
        self.stage = stage

    def forward(
        self,
        x: Tensor,
        cond: Conditioning,
        logsnr: Tensor,
        eps: Tensor,
        weighting: Weighting | None,
    ) -> Tensor:
        """As `Stage.loss`."""
        return self.stage.loss(x, cond, logsnr, eps, weighting=weighting)


class Whole:
    """One process that holds everything."""

    group: Group = ALONE
    spread = False

    def __init__(self, stage: Stage) -> None:
        """Keep the stage."""
        self._loss: Any = StageLoss(stage)

    def losses(
        self,
        x: Tensor,
        cond: Conditioning,
        logsnr: Tensor,
        eps: Tensor,
        *,
        weighting: Weighting | None,
    ) -> Tensor:
        """Training loss of each of this process's pictures, (B,)."""
        losses: Tensor = self._loss(x, cond, logsnr, eps, weighting)
        return losses

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        yield

    def gathered(self, average: nn.Module) -> Stage:
        """The averaged stage, whole; on processes other than the first it may have no weights."""
        return cast(Stage, average)


class Copies(Whole):
    """A copy of the stage on every process (DistributedDataParallel).

    Args:
        stage: the same weights on every process.
        group: the processes.
    """

    def __init__(self, stage: Stage, group: Group) -> None:
        """Wrap the stage; its weights are the first process's from here on."""
        from torch.nn.parallel import DistributedDataParallel

        super().__init__(stage)
        self.group = group
        device = next(stage.parameters()).device
        # Weights used through `expand` get gradients with other strides, to no harm.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its name is about to change
            self._loss = DistributedDataParallel(
                self._loss,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,  # they do not change in training
                gradient_as_bucket_view=True,
            )

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        if last:
            yield
            return
        with self._loss.no_sync():
            yield


class Shards(Whole):
    """Weights, gradients, averages and moments spread over the processes (FSDP2).

    Blocks are gathered one at a time, what is outside of them at the root.

    Args:
        stage: the same weights on every process; they become shards.
        average: of the stage's weights; its weights become shards, too.
        group: the processes.
    """

    spread = True

    def __init__(self, stage: Stage, average: nn.Module, group: Group) -> None:
        """Spread the weights."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(stage)
        self.group = group
        # Kept without weights, to put gathered ones into.
        self._skeleton = copy.deepcopy(average).to("meta")
        mesh = init_device_mesh(next(stage.parameters()).device.type, (group.world_size,))
        for parameter in stage.parameters():  # FSDP2 takes no channels_last weights
            parameter.data = parameter.data.contiguous()
        for module in stage.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(self._loss, mesh=mesh)
        _spread_average(average, stage)

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """Around one part of a step: gradients are exchanged after the last alone."""
        self._loss.set_requires_gradient_sync(last)
        yield

    @torch.no_grad()
    def gathered(self, average: nn.Module) -> Stage:
        """The averaged stage on the first process; the others help, and keep no weights."""
        tensors = {}
        for name, tensor in average.state_dict().items():
            full = whole(tensor)
            if self.group.is_first:
                layout = torch.channels_last if full.ndim == 4 else torch.contiguous_format
                tensors[name] = full.clone(memory_format=layout)
        stage = cast(Stage, copy.deepcopy(self._skeleton))
        if self.group.is_first:
            stage.load_state_dict(tensors, assign=True)
        return stage.requires_grad_(False).eval()


def _spread_average(average: nn.Module, stage: Stage) -> None:
    for name, like in stage.named_parameters():
        holder, _, own = name.rpartition(".")
        module = average.get_submodule(holder)
        spread = spread_like(module.get_parameter(own).data.contiguous(), like.detach())
        setattr(module, own, nn.Parameter(spread, requires_grad=False))
