"""Batches of training tensors, each a pure function of (seed, position) and the data.

Position p asks for crop j = p mod c of example number p // c - j * SPREAD in the shuffled order,
where c is `crops_per_image`: the crops of one image come SPREAD images apart, so that a
batch holds many images and decoding keeps an even pace. The caption, the place of the crop and
the mirroring are functions of (seed, p). An image that cannot be used is replaced by the next one
in the same epoch's order, which depends on the data alone: the batch stays a pure function.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch

from calotype.data.batch import Batch, BatchPlan, BatchShare
from calotype.data.cache import ImageCache, Prepared
from calotype.data.example import Caption
from calotype.data.images import BrokenImage
from calotype.data.labels import label_of
from calotype.data.order import Ints, Stream, randint, shuffled_index
from calotype.data.painting import cut, painted
from calotype.data.prefetch import prefetched
from calotype.data.resize import TooSmall, area_resize, fit_image
from calotype.data.source import ExampleSource, whole_source
from calotype.errors import CalotypeError

SPREAD = 16
"""Images between two crops of the same one."""

DECODERS = 2
"""Threads that decode; Pillow lets go of the interpreter lock while it does."""

WHITE = (255, 255, 255)


def batches(
    source: ExampleSource, plan: BatchPlan, *, start_position: int = 0, prefetch: int = 3
) -> Generator[Batch, None, None]:
    """Batches without end from `start_position` on; close the generator to stop.

    Args:
        source: examples.
        plan: sizes, settings, and which process's part of each batch is made.
        start_position: examples of the global order before the first batch.
        prefetch: batches made ahead on a background thread; 0 = none, in the caller's thread.

    Raises:
        CalotypeError: too many images are broken, or none is usable.
    """
    if len(source) == 0:
        raise CalotypeError("the data has no examples to train on; check --data and data.styles")
    made = _make_batches(source, plan, start_position)
    return prefetched(made, prefetch) if prefetch > 0 else made


def _make_batches(
    source: ExampleSource, plan: BatchPlan, position: int
) -> Generator[Batch, None, None]:
    with closing(_Reader(source, plan)) as reader:
        while True:
            yield reader.batch(position)
            position += plan.batch_size


class NothingUsable(CalotypeError):
    """No image of a source can be used."""


class _Reader:
    """Makes the batch at any position; keeps decoded images and knows the unusable ones."""

    def __init__(self, source: ExampleSource, plan: BatchPlan) -> None:
        self.source = source
        self.plan = plan
        recent = plan.config.crops_per_image * SPREAD + plan.batch_size
        self.cache = ImageCache(
            plan.config.cache_bytes, recent=recent * (plan.config.crops_per_image > 1)
        )
        self.unusable: set[int] = set()
        self.decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="calotype-decode")

    def close(self) -> None:
        self.decoders.shutdown(wait=True, cancel_futures=True)

    def batch(self, position: int) -> Batch:
        plan = self.plan
        end = position + plan.batch_size
        positions = np.arange(position + plan.rank, end, plan.world_size, dtype=np.int64)
        examples = self._examples(positions)
        choices = randint(plan.seed, positions, stream=Stream.CAPTION, below=1 << 32)
        chosen = []
        for example, choice in zip(examples, choices, strict=True):
            captions = example.captions[: plan.config.caption_variants]
            chosen.append(captions[int(choice) * len(captions) >> 32] if captions else Caption(""))
        grounds = np.array([caption.background or WHITE for caption in chosen], np.float32)
        corners = self._corners(positions)
        flips = randint(plan.seed, positions, stream=Stream.FLIP, below=2) * plan.config.flip
        pixels = cut(examples, corners, flips, side=self._side)
        x, alpha = painted(pixels, grounds), None
        if plan.alpha:
            alpha = torch.from_numpy(pixels[..., 3]).unsqueeze(1) / 255
        lowres = whole_lowres = places = None
        if plan.lowres_resolution is not None:
            lowres = area_resize(x, x.shape[-1] // plan.grid)
            if plan.whole_lowres:
                whole = cut(examples, np.zeros_like(corners), flips, side=plan.resolution)
                whole_lowres = area_resize(painted(whole, grounds), plan.lowres_resolution)
                mirrored = plan.resolution - self._side - corners[:, 1]
                corners[:, 1] = np.where(flips, mirrored, corners[:, 1])
                places = torch.from_numpy(corners // plan.grid)
        rows = tuple(range(plan.rank, plan.batch_size, plan.world_size))
        share = BatchShare(rows, plan.batch_size) if plan.world_size > 1 else None
        wanted, labels = plan.config.labels, None
        if wanted is not None:
            labels = tuple(label_of(example.key, example.label, wanted) for example in examples)
        firsts = [e.captions[0] if e.captions else Caption("") for e in examples]
        return Batch(
            x,
            lowres,
            tuple(caption.text for caption in chosen),
            tuple(example.key for example in examples),
            position,
            share=share,
            first_captions=tuple(caption.text for caption in firsts),
            concepts=tuple(caption.concept or caption.text for caption in firsts),
            whole_lowres=whole_lowres,
            places=places,
            alpha=alpha,
            labels=labels,
        )

    @property
    def _side(self) -> int:
        crop = self.plan.config.crop
        return self.plan.resolution if crop is None else crop

    def _corners(self, positions: Ints) -> Ints:
        """Row and column where each crop begins, (B, 2)."""
        plan = self.plan
        places = (plan.resolution - self._side) // plan.grid + 1
        rows = randint(plan.seed, positions, stream=Stream.ROW, below=places)
        columns = randint(plan.seed, positions, stream=Stream.COLUMN, below=places)
        return np.stack((rows, columns), axis=1) * plan.grid

    def _examples(self, positions: Ints) -> list[Prepared]:
        """The example at each position, stepping over unusable ones."""
        crops = self.plan.config.crops_per_image
        slots = positions // crops - positions % crops * SPREAD
        length = len(self.source)
        skip = np.zeros_like(positions)
        found: dict[int, Prepared] = {}
        while True:
            order = shuffled_index(slots, seed=self.plan.seed, length=length, skip=skip)
            indices = [int(index) for index in order]
            self._read(indices, found)
            bad = np.array([index in self.unusable for index in indices])
            if not bad.any():
                return [found[index] for index in indices]
            skip += bad
            if skip.max() >= length:
                raise NothingUsable(
                    f"none of the {length} images can be used, e.g. {self._example_of_failure()}"
                )

    def _read(self, indices: list[int], found: dict[int, Prepared]) -> None:
        """Bring the examples into `found`; mark those that cannot be used."""
        wanted = dict.fromkeys(i for i in indices if i not in found and i not in self.unusable)
        found |= {i: kept for i in wanted if (kept := self.cache.get(i)) is not None}
        missing = [index for index in wanted if index not in found]
        results = zip(missing, self.decoders.map(self._prepare, missing), strict=True)
        for index, result in results:
            if isinstance(result, Prepared):
                found[index] = result
                self.cache.put(index, result)
            else:
                self._mark_unusable(index, result)

    def _prepare(self, index: int) -> Prepared | CalotypeError:
        config = self.plan.config
        try:
            example = self.source[index]
            image = fit_image(
                example.image, self.plan.resolution, fit=config.fit, small=config.small
            )
        except (BrokenImage, TooSmall) as error:
            return error
        return Prepared(example.key, image, example.captions, example.label)

    def _mark_unusable(self, index: int, reason: CalotypeError) -> None:
        self.unusable.add(index)
        report = self.source.report
        kind = report.skipped if isinstance(reason, TooSmall) else report.broken
        kind[self.source.key(index)] = str(reason)
        total = len(whole_source(self.source))  # the report is of all of it
        share = self.plan.config.broken_fraction
        if len(report.broken) > share * total:
            raise CalotypeError(
                f"{len(report.broken)} of {total} images are broken, more than the set share of "
                f"{share:.0%}, e.g. {self._example_of_failure()}; run `calotype data verify`, "
                "repair them or raise data.broken_fraction"
            )

    def _example_of_failure(self) -> str:
        report = self.source.report
        key, reason = next(iter((report.broken or report.skipped).items()))
        return f"{key}: {reason}"


def sequential_batches(
    source: ExampleSource, plan: BatchPlan, *, limit: int | None = None
) -> Iterator[Batch]:
    """One pass over the source for validation: the same examples, captions and crops each time.

    Stops after `limit` examples (rounded up to whole batches); in the order of the seed.
    """
    total = len(source) if limit is None else min(limit, len(source))
    if total == 0:
        return
    with closing(_Reader(source, plan)) as reader:
        for position in range(0, total, plan.batch_size):
            yield reader.batch(position)


def each_example(source: ExampleSource, plan: BatchPlan) -> Iterator[Prepared]:
    """Every usable example of a source, decoded and fitted to the stage, in the source's order."""
    with closing(_Reader(source, plan)) as reader:
        for start in range(0, len(source), plan.batch_size):
            indices = list(range(start, min(start + plan.batch_size, len(source))))
            found: dict[int, Prepared] = {}
            reader._read(indices, found)
            yield from (found[index] for index in indices if index in found)
