"""The endless stream of batches of a job: of its data, or mixed with examples to preserve."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from calotype.config.recipe import TrainConfig
from calotype.data.batches import Batch, BatchShare, planned_batches
from calotype.data.source import ExampleSource
from calotype.errors import ConfigError
from calotype.training.distributed import Group
from calotype.training.job import Job


def training_batches(job: Job) -> Generator[Batch, None, None]:
    """This process's part of a job's batches, from its position on; close it to stop."""
    config, position = job.config, job.state.position
    if job.preserved is None:
        size = config.batch_size
        return _open(job, job.source, batch_size=size, start=position)
    return _mixed(job, job.preserved, position)


def check_batches(config: TrainConfig, group: Group) -> None:
    """Refuse batches that processes cannot share evenly, before anything is prepared.

    Raises:
        ConfigError: the batch, or its part of preserved images, is no multiple of their number.
    """
    kept, count = config.preserved_images, group.world_size
    for name, size in (("batch_size", config.batch_size), ("preserved images", kept)):
        if size % count:
            raise ConfigError(
                f"got {name}={size} for {count} processes; expected a multiple of their number: "
                "change it with --set, or start another number of processes"
            )


def _mixed(job: Job, preserved: ExampleSource, position: int) -> Generator[Batch, None, None]:
    """Batches of both sources, each in its own order and at its own pace."""
    config = job.config
    kept = config.preserved_images
    new = config.batch_size - kept
    number = position // config.batch_size  # batches before this one, all of full size
    weight = 1.0 if config.preservation is None else config.preservation.weight
    first = _open(job, job.source, batch_size=new, start=number * new)
    second = _open(job, preserved, batch_size=kept, start=number * kept)
    with closing(first), closing(second):
        while True:
            yield joined(next(first), next(second), weight=weight, position=position)
            position += config.batch_size


def joined(new: Batch, kept: Batch, *, weight: float, position: int) -> Batch:
    """One batch of two, evenly interleaved: noise levels are stratified along a batch.

    Parts of batches that processes share give the same part of the joined one.

    Args:
        new: examples that count fully.
        kept: examples whose loss counts `weight`.
        weight: of those.
        position: of the joined batch.
    """
    total = new.images + kept.images
    order = _interleaved(new.images, kept.images)
    own = {place: number for number, place in enumerate((*_own(new, 0), *_own(kept, new.images)))}
    rows = [own[place] for place in order if place in own]
    share = None
    if new.share is not None:
        share = BatchShare(tuple(n for n, place in enumerate(order) if place in own), total)
    captions, keys = (*new.captions, *kept.captions), (*new.keys, *kept.keys)
    first = (*new.first_captions, *kept.first_captions)
    concepts = (*new.concepts, *kept.concepts)
    weights = torch.cat((torch.ones(len(new.x)), torch.full((len(kept.x),), weight)))
    return Batch(
        torch.cat((new.x, kept.x))[rows],
        _rows_of(new.lowres, kept.lowres, rows),
        tuple(captions[row] for row in rows),
        tuple(keys[row] for row in rows),
        position,
        weights[rows],
        share,
        tuple(first[row] for row in rows),
        tuple(concepts[row] for row in rows),
        _rows_of(new.whole_lowres, kept.whole_lowres, rows),
        _rows_of(new.places, kept.places, rows),
    )


def _rows_of(new: Tensor | None, kept: Tensor | None, rows: list[int]) -> Tensor | None:
    return None if new is None or kept is None else torch.cat((new, kept))[rows]


def _interleaved(new: int, kept: int) -> list[int]:
    """Which example stands in each row; those to preserve are counted after the new ones."""
    total, rows, taken = new + kept, list[int](), 0
    for row in range(total):
        if (row + 1) * kept // total > taken:
            rows.append(new + taken)
            taken += 1
        else:
            rows.append(row - taken)
    return rows


def _own(batch: Batch, before: int) -> list[int]:
    rows = range(len(batch.x)) if batch.share is None else batch.share.rows
    return [before + row for row in rows]


def _open(
    job: Job, source: ExampleSource, *, batch_size: int, start: int
) -> Generator[Batch, None, None]:
    plan = replace(
        job.task.batch_plan(),
        batch_size=batch_size,
        rank=job.group.rank,
        world_size=job.group.world_size,
    )
    return planned_batches(source, plan, start_position=start)
