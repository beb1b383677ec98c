"""The call of a stage's network: bound to its conditioning here, or answered by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from calotype.cascade.timesteps import NetworkOutput, network_level, split_variance
from calotype.conditioning import Conditioning
from calotype.networks import DenoisingNetwork

if TYPE_CHECKING:
    from calotype.cascade.stage import Stage

NetworkCall = Callable[[Tensor, Tensor], NetworkOutput]
Answer = Callable[["Stage", Conditioning, Tensor, Tensor], NetworkOutput]
"""Answers a network call in the network's place: of a stage, with its conditioning complete (draft,
known pixels), at noisy inputs (B, 3, H, W) and their levels (B,). It may join several calls into
one of `bound_network`."""


def bound_network(stage: Stage, cond: Conditioning) -> NetworkCall:
    """The network with its complete conditioning, autocast where asked, float32 outside."""
    config, device, dtype = stage.config.network, stage.device.type, stage.compute_dtype
    autocast = partial(torch.autocast, device, dtype=dtype, enabled=dtype != torch.float32)
    with autocast():
        bound = cast(DenoisingNetwork, stage.network).bind(cond)

    def call(z: Tensor, logsnr: Tensor) -> NetworkOutput:
        with autocast():
            level = network_level(config, stage.schedule, logsnr)
            output = bound(z.to(memory_format=torch.channels_last), level)
        return split_variance(output.to(z.dtype), config)

    return call
