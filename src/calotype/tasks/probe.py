"""A fixed handful of examples that a run is judged by: the same images, captions and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.config.diffusion import DiffusionTraining
from calotype.data.batch import BatchPlan
from calotype.data.batches import NothingUsable, sequential_batches
from calotype.data.source import ExampleSource

PROBE_SEED = 20220523  # any constant: the probes of two runs are the same
_CHUNK = 32


@dataclass(frozen=True)
class Probe:
    """Fixed examples.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        lowres: (B, 3, h, w), or None for a base.
        captions: B texts.
    """

    x: Tensor
    lowres: Tensor | None
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    def head(self, count: int) -> Probe:
        """The first examples."""
        lowres = None if self.lowres is None else self.lowres[:count]
        return Probe(self.x[:count], lowres, self.captions[:count])


def read_probe(source: ExampleSource, config: DiffusionTraining, *, limit: int) -> Probe | None:
    """The first `limit` examples in an order that no run's seed changes; None if none can be used.

    Images are cut as in training, so that a stage trained on crops is judged on crops.
    """
    if len(source) == 0:
        return None
    plan = BatchPlan(
        resolution=config.stage.resolution,
        lowres_resolution=config.stage.lowres_resolution,
        config=config.data,
        batch_size=_CHUNK,
        seed=PROBE_SEED,
    )
    limit = min(limit, len(source))
    try:
        parts = list(sequential_batches(source, plan, limit=limit))
    except NothingUsable:  # a small set's only image to validate on may be broken
        return None
    lowres = [part.lowres for part in parts if part.lowres is not None]
    captions = tuple(caption for part in parts for caption in part.captions)
    x = torch.cat([part.x for part in parts])
    return Probe(x, torch.cat(lowres) if lowres else None, captions).head(limit)
