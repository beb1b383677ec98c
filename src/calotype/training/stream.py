"""The batches of a job: of its data, or mixed with examples to preserve."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from calotype.config.training import TrainConfig
from calotype.data.batch import Batch, BatchShare
from calotype.data.batches import batches
from calotype.data.source import ExampleSource
from calotype.errors import CalotypeError, ConfigError
from calotype.training.distributed import Group
from calotype.training.preparation import Job
from calotype.training.state import TrainState


def training_batches(job: Job, state: TrainState) -> Generator[Batch, None, None]:
    """This process's part of the batches that are left to `state`, which each is to move on.

    The last one is cut where the task ends. Close it to stop earlier.
    """
    group, position, size = state.parallel.group, state.position, job.task.config.batch_size
    if job.preserved is None:
        endless = _open(job, job.source, group, batch_size=size, start=position)
    else:
        endless = _mixed(job, job.preserved, group, position)
    with closing(endless):
        while not state.finished:
            yield shortened(next(endless), state.end - state.images)


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


def _mixed(
    job: Job, preserved: ExampleSource, group: Group, position: int
) -> Generator[Batch, None, None]:
    """Batches of both sources, each in its own order and at its own pace."""
    config = job.task.config
    kept = config.preserved_images
    new = config.batch_size - kept
    number = position // config.batch_size  # batches before this one, all of full size
    first = _open(job, job.source, group, batch_size=new, start=number * new)
    second = _open(job, preserved, group, batch_size=kept, start=number * kept)
    with closing(first), closing(second):
        while True:
            yield joined(
                next(first), next(second), weight=config.preserved_weight, position=position
            )
            position += config.batch_size


def shortened(batch: Batch, images: int) -> Batch:
    """At most `images` examples of a batch: the last one of a run."""
    if images <= 0:
        raise CalotypeError(f"got {images} images left; expected at least 1")
    if batch.images <= images:
        return batch
    if batch.share is not None:
        # Rows that are too many stay, and count nothing: all processes do the same work.
        counted = torch.tensor(batch.share.rows) < images
        weights = torch.ones(len(batch.x)) if batch.weights is None else batch.weights
        share = replace(batch.share, total=images)
        return replace(batch, weights=weights * counted, share=share)
    return replace(batch, **{name: rows[:images] for name, rows in _rows_of(batch).items()})


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
    ones = replace(new, weights=torch.ones(len(new.x)))
    other = _rows_of(replace(kept, weights=torch.full((len(kept.x),), weight)))
    chosen: dict[str, Any] = {
        name: torch.cat((some, other[name]))[rows]
        if isinstance(some, Tensor)
        else tuple((*some, *other[name])[row] for row in rows)
        for name, some in _rows_of(ones).items()
        if name in other
    }
    return Batch(**{"lowres": None, **chosen}, position=position, share=share)


def _rows_of(batch: Batch) -> dict[str, Any]:
    """The fields that hold something of each row: tensors and tuples."""
    values = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return {name: value for name, value in values if isinstance(value, Tensor | tuple)}


def _interleaved(new: int, kept: int) -> list[int]:
    """Which example stands in each row; those to preserve are counted after the new ones."""
    total = new + kept
    taken = pairwise(row * kept // total for row in range(total + 1))
    return [new + t if after > t else row - t for row, (t, after) in enumerate(taken)]


def _own(batch: Batch, before: int) -> list[int]:
    rows = range(len(batch.x)) if batch.share is None else batch.share.rows
    return [before + row for row in rows]


def _open(
    job: Job, source: ExampleSource, group: Group, *, batch_size: int, start: int
) -> Generator[Batch, None, None]:
    plan = replace(
        job.task.batch_plan(),
        batch_size=batch_size,
        rank=group.rank,
        world_size=group.world_size,
    )
    return batches(source, plan, start_position=start)
