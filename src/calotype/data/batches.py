"""Batches of training tensors, each a pure function of (seed, position) and the data.

Position p asks for crop j = p mod c of example number p // c - j * SPREAD in the shuffled order,
where c is `crops_per_image`: the crops of one image come SPREAD images apart, so that a
batch holds many images and decoding keeps an even pace. The caption, the place of the crop and
the mirroring are drawn from (seed, p). An image that cannot be used is replaced by the next one
in the same epoch's order, which depends on the data alone: the batch stays a pure function.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.config.data import DataConfig
from calotype.data.cache import ImageCache, Prepared
from calotype.data.example import Caption
from calotype.data.images import BrokenImage
from calotype.data.order import Ints, Stream, draw, shuffled_index
from calotype.data.prefetch import prefetched
from calotype.data.resize import TooSmall, area_resize, fit_image
from calotype.data.source import ExampleSource
from calotype.errors import CalotypeError, ConfigError

SPREAD = 16
"""Images between two crops of the same one."""

DECODERS = 2
"""Threads that decode; Pillow lets go of the interpreter lock while it does."""

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class BatchShare:
    """One process's part of a batch that several processes share.

    Args:
        rows: which rows of the whole batch these are, rising; those from `total` on do not count.
        total: rows of the whole batch.
    """

    rows: tuple[int, ...]
    total: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples to train on.

    Args:
        x: (B, 3, H, W) float32 in [-1, 1], channels last in memory; crops when the recipe crops.
        lowres: (B, 3, h, w) the same by the box filter, in [-1, 1]; None for a base stage.
        captions: B texts; "" trains as unconditional.
        keys: B names of examples.
        position: of the first example of the global batch.
        weights: how much each example's loss counts, (B,); None = all 1.
        share: which part of a batch of several processes this is; None = all of it.
        first_captions: of each example, whichever of them was chosen; "" = it has none.
        concepts: what each shows: as the data say it, else its first caption.
        whole_lowres: what `lowres` are crops of, (B, 3, h, w), where the plan asks for it.
        places: row and column in it where each of `lowres` begins, (B, 2) int64; with it.
    """

    x: Tensor
    lowres: Tensor | None
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    position: int
    weights: Tensor | None = None
    share: BatchShare | None = None
    first_captions: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    whole_lowres: Tensor | None = None
    places: Tensor | None = None

    @property
    def images(self) -> int:
        """Examples of the whole batch, over all processes."""
        return len(self.x) if self.share is None else self.share.total


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The arguments of `batches`, and whether crops come with whole low-resolution images."""

    resolution: int
    lowres_resolution: int | None
    config: DataConfig
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    whole_lowres: bool = False

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        crop = self.config.crop
        if crop is not None and not 0 < crop <= self.resolution:
            raise ConfigError(f"got crop={crop}; expected 1 to {self.resolution} (the stage)")
        if crop is not None and crop % self.grid:
            raise ConfigError(f"got crop={crop}; expected a multiple of {self.grid}")
        if self.lowres_resolution is not None and self.resolution % self.lowres_resolution:
            raise ConfigError(
                f"got lowres_resolution={self.lowres_resolution} for {self.resolution}; "
                "expected a divisor of it"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ConfigError(
                f"got batch_size={self.batch_size} for {self.world_size} processes; "
                "expected a multiple of their number"
            )
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"got rank={self.rank}; expected 0 to {self.world_size - 1}")

    @property
    def grid(self) -> int:
        """Crops start at multiples of this, so that low-resolution pixels are not cut."""
        return 1 if self.lowres_resolution is None else self.resolution // self.lowres_resolution


def batches(
    source: ExampleSource,
    *,
    resolution: int,
    lowres_resolution: int | None,
    config: DataConfig,
    batch_size: int,
    seed: int,
    start_position: int = 0,
    prefetch: int = 3,
    rank: int = 0,
    world_size: int = 1,
) -> Generator[Batch, None, None]:
    """Batches without end from `start_position` on; close the generator to stop.

    Args:
        source: examples.
        resolution: side in pixels that images are brought to.
        lowres_resolution: side of their low-resolution partners; None for a base stage.
        config: cropping, fitting, flipping, captions, limits.
        batch_size: examples of the global batch, over all processes.
        seed: of everything random.
        start_position: examples of the global order before the first batch.
        prefetch: batches made ahead on a background thread; 0 = none, in the caller's thread.
        rank: this process; it gets positions rank, rank + world_size, ... of each batch.
        world_size: count of processes; the global order does not depend on it.

    Raises:
        CalotypeError: sizes do not fit, too many images are broken, or none is usable.
    """
    plan = BatchPlan(
        resolution=resolution,
        lowres_resolution=lowres_resolution,
        config=config,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    return planned_batches(source, plan, start_position=start_position, prefetch=prefetch)


def planned_batches(
    source: ExampleSource, plan: BatchPlan, *, start_position: int = 0, prefetch: int = 3
) -> Generator[Batch, None, None]:
    """As `batches`, with its arguments in one record."""
    if len(source) == 0:
        raise CalotypeError("the data has no examples to train on; check --data and data.styles")
    made = _make_batches(source, plan, start_position)
    return prefetched(made, prefetch) if prefetch > 0 else made


def _make_batches(
    source: ExampleSource, plan: BatchPlan, position: int
) -> Generator[Batch, None, None]:
    reader = _Reader(source, plan)
    try:
        while True:
            yield reader.batch(position)
            position += plan.batch_size
    finally:
        reader.close()


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
        choices = draw(plan.seed, positions, stream=Stream.CAPTION, below=1 << 32)
        chosen = []
        for example, choice in zip(examples, choices, strict=True):
            captions = example.captions[: plan.config.caption_variants]
            chosen.append(captions[int(choice) * len(captions) >> 32] if captions else Caption(""))
        grounds = np.array([caption.background or WHITE for caption in chosen], np.float32)
        corners = self._corners(positions)
        flips = draw(plan.seed, positions, stream=Stream.FLIP, below=2) * plan.config.flip
        x = _painted(cut(examples, corners, flips, side=self._side), grounds)
        lowres = whole_lowres = places = None
        if plan.lowres_resolution is not None:
            lowres = area_resize(x, x.shape[-1] // plan.grid)
            if plan.whole_lowres:
                whole = cut(examples, np.zeros_like(corners), flips, side=plan.resolution)
                whole_lowres = area_resize(_painted(whole, grounds), plan.lowres_resolution)
                mirrored = plan.resolution - self._side - corners[:, 1]
                corners[:, 1] = np.where(flips, mirrored, corners[:, 1])
                places = torch.from_numpy(corners // plan.grid)
        rows = tuple(range(plan.rank, plan.batch_size, plan.world_size))
        share = BatchShare(rows, plan.batch_size) if plan.world_size > 1 else None
        keys = tuple(example.key for example in examples)
        firsts = [e.captions[0] if e.captions else Caption("") for e in examples]
        batch = Batch(x, lowres, tuple(c.text for c in chosen), keys, position, share=share)
        return replace(
            batch,
            first_captions=tuple(caption.text for caption in firsts),
            concepts=tuple(caption.concept or caption.text for caption in firsts),
            whole_lowres=whole_lowres,
            places=places,
        )

    @property
    def _side(self) -> int:
        crop = self.plan.config.crop
        return self.plan.resolution if crop is None else crop

    def _corners(self, positions: Ints) -> Ints:
        """Row and column where each crop begins, (B, 2)."""
        plan = self.plan
        places = (plan.resolution - self._side) // plan.grid + 1
        rows = draw(plan.seed, positions, stream=Stream.ROW, below=places)
        columns = draw(plan.seed, positions, stream=Stream.COLUMN, below=places)
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
        missing = []
        for index in dict.fromkeys(indices):
            if index in found or index in self.unusable:
                continue
            cached = self.cache.get(index)
            if cached is None:
                missing.append(index)
            else:
                found[index] = cached
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
        return Prepared(example.key, image, example.captions)

    def _mark_unusable(self, index: int, reason: CalotypeError) -> None:
        self.unusable.add(index)
        report = self.source.report
        kind = report.skipped if isinstance(reason, TooSmall) else report.broken
        kind[self.source.key(index)] = str(reason)
        # The report is that of the whole source, of which this may be a part.
        total = len(getattr(self.source, "source", self.source))
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


def cut(examples: list[Prepared], corners: Ints, flips: Ints, *, side: int) -> NDArray[np.uint8]:
    """(B, side, side, 4): squares from `corners`, (B, 2), on, mirrored where `flips`, (B,)."""
    pixels = np.empty((len(examples), side, side, 4), np.uint8)
    for i, example in enumerate(examples):
        top, left = corners[i]
        square = example.image[top : top + side, left : left + side]
        pixels[i] = square[:, ::-1] if flips[i] else square
    return pixels


def _painted(pixels: NDArray[np.uint8], colours: NDArray[np.float32]) -> Tensor:
    """(B, 3, H, W) in [-1, 1], channels last in memory."""
    return torch.from_numpy(composite(pixels, colours)).permute(0, 3, 1, 2)


def composite(pixels: NDArray[np.uint8], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Paint images over plain backgrounds.

    Args:
        pixels: (B, H, W, 4) straight-alpha RGBA.
        colours: (B, 3) backgrounds, 0..255.

    Returns:
        (B, H, W, 3) in [-1, 1].
    """
    x = np.empty((*pixels.shape[:3], 3), np.float32)
    # Image by image and channel by channel: three times as fast as all at once, whose
    # temporaries leave the processor's cache and whose innermost loop has three turns.
    for image, colour, painted in zip(pixels, colours * (2 / 255), x, strict=True):
        alpha = image[..., 3].astype(np.float32)
        alpha *= 1 / 255
        for channel, behind in enumerate(colour):
            plane = image[..., channel] * np.float32(2 / 255)
            plane -= behind
            plane *= alpha
            plane += behind - 1
            painted[..., channel] = plane
    return x


def sequential_batches(
    source: ExampleSource, plan: BatchPlan, *, limit: int | None = None
) -> Iterator[Batch]:
    """One pass over the source for validation: the same examples, captions and crops each time.

    Stops after `limit` examples (rounded up to whole batches); in the order of the seed.
    """
    total = len(source) if limit is None else min(limit, len(source))
    if total == 0:
        return
    reader = _Reader(source, plan)
    try:
        for position in range(0, total, plan.batch_size):
            yield reader.batch(position)
    finally:
        reader.close()


def each_example(source: ExampleSource, plan: BatchPlan) -> Iterator[Prepared]:
    """Every usable example of a source, decoded and fitted to the stage, in the source's order."""
    reader = _Reader(source, plan)
    try:
        for start in range(0, len(source), plan.batch_size):
            indices = list(range(start, min(start + plan.batch_size, len(source))))
            found: dict[int, Prepared] = {}
            reader._read(indices, found)
            yield from (found[index] for index in indices if index in found)
    finally:
        reader.close()
