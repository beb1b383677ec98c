"""The endless stream of batches of a job: of its data, or mixed with examples to preserve."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch

from calotype.config import TrainConfig
from calotype.data.batches import Batch, batches
from calotype.data.source import ExampleSource
from calotype.training.job import StageJob


def training_batches(job: StageJob) -> Generator[Batch, None, None]:
    """Batches of a job from its position on; close the generator to stop."""
    config, position = job.config, job.state.position
    if job.preserved is None:
        return _open(job.source, config, batch_size=config.batch_size, start=position)
    return _mixed(job, job.preserved, position)


def _mixed(job: StageJob, preserved: ExampleSource, position: int) -> Generator[Batch, None, None]:
    """Batches of both sources, each in its own order and at its own pace."""
    config = job.config
    kept = config.preserved_images
    new = config.batch_size - kept
    number = position // config.batch_size  # batches before this one, all of full size
    weight = 1.0 if config.preservation is None else config.preservation.weight
    first = _open(job.source, config, batch_size=new, start=number * new)
    second = _open(preserved, config, batch_size=kept, start=number * kept)
    with closing(first), closing(second):
        while True:
            yield joined(next(first), next(second), weight=weight, position=position)
            position += config.batch_size


def joined(new: Batch, kept: Batch, *, weight: float, position: int) -> Batch:
    """One batch of two, evenly interleaved: noise levels are stratified along a batch.

    Args:
        new: examples that count fully.
        kept: examples whose loss counts `weight`.
        weight: of those.
        position: of the joined batch.
    """
    total = len(new.x) + len(kept.x)
    rows, taken = [], 0
    for row in range(total):
        if (row + 1) * len(kept.x) // total > taken:
            rows.append(len(new.x) + taken)
            taken += 1
        else:
            rows.append(row - taken)
    lowres = None
    if new.lowres is not None and kept.lowres is not None:
        lowres = torch.cat((new.lowres, kept.lowres))[rows]
    captions, keys = (*new.captions, *kept.captions), (*new.keys, *kept.keys)
    weights = torch.cat((torch.ones(len(new.x)), torch.full((len(kept.x),), weight)))
    return Batch(
        torch.cat((new.x, kept.x))[rows],
        lowres,
        tuple(captions[row] for row in rows),
        tuple(keys[row] for row in rows),
        position,
        position + total,
        weights[rows],
    )


def _open(
    source: ExampleSource, config: TrainConfig, *, batch_size: int, start: int
) -> Generator[Batch, None, None]:
    return batches(
        source,
        resolution=config.stage.resolution,
        lowres_resolution=config.stage.lowres_resolution,
        config=config.data,
        batch_size=batch_size,
        seed=config.seed,
        start_position=start,
    )
