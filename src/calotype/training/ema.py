"""Exponential moving average of a model's weights, with its half-life in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from calotype.training.shards import to_local

RAMP = 0.1
"""The half-life is never longer than this fraction of the images seen so far (Karras et al. 2022,
appendix F.5, use 0.05 for far longer runs), so that the first, bad weights are forgotten."""


class EMA:
    """A running average of the parameters of `model`; buffers are copied.

    Args:
        model: what is averaged; the average starts as a copy of it.
        halflife_images: images after which an older weight counts half, once `RAMP` times the
            images seen exceeds it.
    """

    def __init__(self, model: nn.Module, *, halflife_images: int) -> None:
        self.halflife_images = halflife_images
        self._model = model
        self._average = copy.deepcopy(model).eval().requires_grad_(False)

    def decay(self, *, batch_size: int, images_seen: int) -> float:
        """Weight of the old average after a step of `batch_size` that ends at `images_seen`."""
        halflife = min(float(self.halflife_images), RAMP * images_seen)
        return float(0.5 ** (batch_size / halflife)) if halflife > 0 else 0.0

    @torch.no_grad()
    def update(self, *, batch_size: int, images_seen: int) -> None:
        """Take in the weights after a step; `images_seen` includes the step."""
        decay = self.decay(batch_size=batch_size, images_seen=images_seen)
        # Anew each time: moving a module, or spreading it, gives its parameters other memory.
        torch._foreach_lerp_(
            _local_tensors(self._average), _local_tensors(self._model), 1.0 - decay
        )
        _copy_buffers(self._model, self._average)

    @torch.no_grad()
    def return_buffers(self) -> None:
        """Give the model the buffers that it had after its last good step."""
        _copy_buffers(self._average, self._model)

    def averaged(self) -> nn.Module:
        """The averaged model, in evaluation mode; the same object every time."""
        return self._average


def _local_tensors(model: nn.Module) -> list[Tensor]:
    return [to_local(parameter.data) for parameter in model.parameters()]


def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for own, other in zip(target.buffers(), source.buffers(), strict=True):
        own.copy_(other)
