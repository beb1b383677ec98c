"""Exponential moving average of a stage's weights, with its half-life in images."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from calotype.training.shards import own_part

RAMP = 0.1
"""The half-life is never longer than this share of the images seen so far (Karras et al. 2022,
appendix F.5, use 0.05 for far longer runs), so that the first, bad weights are forgotten."""


class EMA:
    """A running average of the parameters of `model`; buffers are copied.

    Args:
        model: what is averaged; the average starts as a copy of it.
        halflife_images: images after which an older weight counts half, once `RAMP` times the
            images seen exceeds it.
    """

    def __init__(self, model: nn.Module, *, halflife_images: int) -> None:
        """Copy the model."""
        self.halflife_images = halflife_images
        self._model = model
        self._average = copy.deepcopy(model).eval().requires_grad_(False)
        self.rebind()

    def rebind(self) -> None:
        """Find the weights again, after those of model and average have become shards."""
        self._pairs = _pairs(self._average.parameters(), self._model.parameters())

    def decay(self, *, batch_size: int, images_seen: int) -> float:
        """Weight of the old average after a step of `batch_size` that ends at `images_seen`."""
        halflife = min(float(self.halflife_images), RAMP * images_seen)
        return float(0.5 ** (batch_size / halflife)) if halflife > 0 else 0.0

    @torch.no_grad()
    def update(self, *, batch_size: int, images_seen: int) -> None:
        """Take in the weights after a step; `images_seen` includes the step."""
        decay = self.decay(batch_size=batch_size, images_seen=images_seen)
        averages, weights = self._pairs
        torch._foreach_lerp_(averages, weights, 1.0 - decay)

    def copy_buffers(self) -> None:
        """Take over the model's buffers, e.g. text statistics set after this was made."""
        for own, other in zip(self._average.buffers(), self._model.buffers(), strict=True):
            own.copy_(other)

    @torch.no_grad()
    def reset(self) -> None:
        """Begin anew from the model's weights."""
        for own, other in zip(*self._pairs, strict=True):
            own.copy_(other)
        self.copy_buffers()

    def averaged(self) -> nn.Module:
        """The averaged model, in evaluation mode; the same object every time."""
        return self._average


def _pairs(a: Iterable[Tensor], b: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [own_part(p.data) for p in a], [own_part(p.data) for p in b]
