"""How well a classifier tells the classes of unseen images, by noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.data.batch import BatchPlan
from calotype.data.batches import NothingUsable, sequential_batches
from calotype.data.labels import class_numbers
from calotype.data.source import ExampleSource
from calotype.diffusion import PerSampleNoise, add_noise
from calotype.diffusion.noise_marks import NOISE_RATIOS
from calotype.tasks.validation import PROBE_SEED
from calotype.training.randomness import Rows
from calotype.vision.classifier import ClassifierModel

_CHUNK = 32


@dataclass(frozen=True)
class Labelled(Rows):
    """Fixed examples.

    Args:
        x: (B, 3, R, R) in [-1, 1].
        labels: numbers of their classes, (B,) int64.
    """

    x: Tensor
    labels: Tensor


def read_labelled(
    source: ExampleSource, plan: BatchPlan, names: Sequence[str], *, limit: int
) -> Labelled | None:
    """The first `limit` examples in an order that no run's seed changes; None if none can be used.

    Args:
        source: of examples with labels.
        plan: sizes and settings; whole images.
        names: of all classes, in the order of their numbers.
        limit: most examples.

    Raises:
        UsageError: one is of no class, or of one that is not trained.
    """
    try:
        parts = list(sequential_batches(source, plan, limit=limit))
    except NothingUsable:
        return None
    if not parts:
        return None
    numbers = [class_numbers(part.labels or (), names, part.keys) for part in parts]
    x = torch.cat([part.x for part in parts])[: min(limit, len(source))]
    return Labelled(x, torch.tensor([number for part in numbers for number in part])[: len(x)])


@torch.no_grad()
def accuracy_by_level(
    model: ClassifierModel,
    examples: Labelled,
    *,
    most: int,
    ratios: Sequence[float] = NOISE_RATIOS,
) -> dict[str, float]:
    """The fraction whose class is among the `most` likeliest, at each sigma/alpha; fixed noise."""
    device, hits = model.device, dict.fromkeys(ratios, 0)
    for start in range(0, len(examples), _CHUNK):
        part = examples[start : start + _CHUNK]
        noise = PerSampleNoise([PROBE_SEED + start + row for row in range(len(part))])
        x, labels = part.x.to(device), part.labels.to(device)
        eps = noise.normal(x.shape).to(x)
        for ratio in ratios:
            logsnr = torch.full((len(x),), -2 * math.log(ratio), device=device)
            logits = model(add_noise(x, logsnr, eps), logsnr)
            own = logits.gather(1, labels[:, None])
            rank = (logits >= own).sum(1) - 1  # a tie is no find
            hits[ratio] += int((rank < most).sum())
    return {f"{ratio:g}": round(count / len(examples), 4) for ratio, count in hits.items()}
