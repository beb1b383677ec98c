"""Validation on a fixed handful of examples: the error of the estimated image by noise level.

The mean squared error of x_hat from a nearly pure noise says what the text decides; from little
noise, how fine the images are. That of as many trained images beside it shows memorising.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import KnownPixels
from calotype.conditioning import Conditioning
from calotype.config.data import DataConfig
from calotype.config.masks import MasksConfig
from calotype.config.stage import StageConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import NothingUsable, sequential_batches
from calotype.data.labels import class_numbers
from calotype.data.source import ExampleSource
from calotype.diffusion import (
    DiscreteSchedule,
    NoiseSource,
    PerSampleNoise,
    add_noise,
    some_timesteps,
    thresholding,
    variational_bound,
)
from calotype.diffusion.noise_marks import NOISE_RATIOS
from calotype.errors import UsageError
from calotype.tasks.captions import TextLookup
from calotype.tasks.masks import some_holes
from calotype.training.randomness import Rows

PROBE_SEED = 20220523  # any constant: the probes of two runs are the same
_CHUNK = 32


@dataclass(frozen=True)
class Probe(Rows):
    """Fixed examples.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        lowres: (B, 3, h, w), or None for a base.
        captions: B texts.
        known: with holes, for in-painting; None = plain training.
        classes: numbers of classes, (B,) int64; None for a network without them.
    """

    x: Tensor
    lowres: Tensor | None
    captions: tuple[str, ...]
    known: KnownPixels | None = None
    classes: Tensor | None = None

    def condition(
        self,
        stage: Stage,
        text: TextLookup | None,
        noise: NoiseSource,
        *,
        rows: slice = slice(None),
        aug_level: float = 0.0,
    ) -> Conditioning:
        """What `stage` is conditioned on for some of the examples, on its device."""
        embedded = None if text is None else text(self.captions[rows]).to(stage.device)
        classes = None if self.classes is None else self.classes[rows].to(stage.device)
        if self.lowres is None:
            return Conditioning(embedded, classes=classes)
        lowres, size = self.lowres[rows].to(stage.device), (self.x.shape[2], self.x.shape[3])
        cond = stage.lowres_condition(lowres, embedded, size=size, aug_level=aug_level, noise=noise)
        return replace(cond, classes=classes)


def read_probe(
    source: ExampleSource,
    stage: StageConfig,
    data: DataConfig,
    *,
    limit: int,
    masks: MasksConfig | None = None,
) -> Probe | None:
    """The first `limit` examples in an order that no run's seed changes; None if none can be used.

    Args:
        source: of the examples.
        stage: that is judged on them.
        data: as in training: images are cut alike, so that a stage trained on crops is judged on
            crops, and have classes where labels say them.
        limit: examples at most.
        masks: make holes for in-painting; None = nothing of an image is known.
    """
    if len(source) == 0:
        return None
    plan = BatchPlan(
        resolution=stage.resolution,
        lowres_resolution=stage.lowres_resolution,
        config=data,
        batch_size=_CHUNK,
        seed=PROBE_SEED,
        alpha=masks is not None,
    )
    limit = min(limit, len(source))
    try:
        parts = list(sequential_batches(source, plan, limit=limit))
    except NothingUsable:  # a small set's only image to validate on may be broken
        return None
    lowres = [part.lowres for part in parts if part.lowres is not None]
    captions = tuple(caption for part in parts for caption in part.captions)
    x = torch.cat([part.x for part in parts])
    known = None
    if masks is not None:
        alpha = torch.cat([part.alpha for part in parts if part.alpha is not None])
        known = KnownPixels(x, some_holes(masks, alpha, seed=PROBE_SEED))
    found = [numbered(part.labels, stage, keys=part.keys) for part in parts]
    classes = [one for one in found if one is not None]
    return Probe(
        x,
        torch.cat(lowres) if lowres else None,
        captions,
        known,
        torch.cat(classes) if classes else None,
    )[:limit]


def numbered(
    labels: Sequence[str] | None, stage: StageConfig, *, keys: Sequence[str]
) -> Tensor | None:
    """The numbers of labels among the classes of a stage, (B,) int64; None where it has none.

    Raises:
        UsageError: there is no class of a name.
    """
    if labels is None or stage.class_count == 0:
        return None
    return torch.tensor(class_numbers(labels, stage.classes, keys))


@torch.no_grad()
def errors_by_level(
    stage: Stage,
    probe: Probe,
    text: TextLookup | None,
    *,
    ratios: Sequence[float] = NOISE_RATIOS,
    in_holes: bool = False,
) -> dict[str, float]:
    """Mean squared error of x_hat (images in [-1, 1]) at each sigma/alpha, with fixed noise.

    Super-resolution stages get their low-resolution images clean (aug_level 0). With `in_holes`
    the network is given what is known, and judged where nothing is.
    """
    totals = dict.fromkeys(ratios, 0.0)
    for start in range(0, len(probe), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(probe)))
        x = probe.x[rows].to(stage.device)
        noise = PerSampleNoise([PROBE_SEED + i for i in range(rows.start, rows.stop)])
        eps = noise.normal(x.shape).to(x)
        clean = PerSampleNoise([PROBE_SEED] * len(x), stream=1)  # of level 0
        cond, counted = probe.condition(stage, text, clean, rows=rows), torch.ones_like(x[:, :1])
        if in_holes and probe.known is not None:
            known = probe.known[rows]
            cond = replace(cond, extra=known.channels().to(x))
            counted = (~known.mask).to(x)
        weights = counted / counted.mean((2, 3), keepdim=True)
        denoise = stage.denoiser(cond)
        for ratio in ratios:
            logsnr = torch.full((len(x),), -2 * math.log(ratio), device=x.device)
            x_hat = denoise(add_noise(x, logsnr, eps), logsnr).x_hat
            squares = (x_hat - x).double().square() * weights
            totals[ratio] += float(squares.flatten(1).mean(1).sum())
    return {f"{ratio:g}": total / len(probe) for ratio, total in totals.items()}


def bits_per_dimension(stage: Stage, probe: Probe, text: TextLookup | None) -> Tensor:
    """The variational bound of each example with fixed noise, (N,), estimated at a few timesteps.

    Estimates are clipped to [-1, 1], as in published bounds; low-resolution images are clean.

    Raises:
        UsageError: the stage's schedule has no table of timesteps.
    """
    schedule = stage.schedule
    if not isinstance(schedule, DiscreteSchedule):
        raise UsageError(
            f"got the {stage.config.resolution} stage, whose schedule has no table of timesteps; "
            "expected one for bits per dimension: leave them out"
        )
    timesteps, counts = some_timesteps(schedule.steps, len(probe))
    found = []
    for start in range(0, len(probe), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(probe)))
        x = probe.x[rows].to(stage.device)
        clean = PerSampleNoise([PROBE_SEED] * len(x), stream=1)  # of level 0
        bound = variational_bound(
            thresholding(None)(stage.denoiser(probe.condition(stage, text, clean, rows=rows))),
            x,
            PerSampleNoise([PROBE_SEED + i for i in range(rows.start, rows.stop)]),
            schedule=schedule,
            timesteps=timesteps[rows],
            counts=counts,
        )
        found.append(bound.total.cpu())
    return torch.cat(found)
