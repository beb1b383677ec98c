"""Images whose features are taken: samples, real images, training images, as pieces of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from calotype.data.columns import Selection
from calotype.data.example import Caption
from calotype.data.grammar import CaptionGrammar
from calotype.data.images import BrokenImage
from calotype.data.open import parquet_files, parts
from calotype.data.work import DataPart, open_for_work, source_of, usable_cores
from calotype.errors import UsageError
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.features.store import (
    CHUNK,
    ImageChunk,
    StoredFeatures,
    compute_chunk,
    features_of,
)
from calotype.evaluation.samples import SampleSet
from calotype.evaluation.samples.sample_set import EVERYTHING, square_pixels
from calotype.evaluation.suites.suite import first_by_hash
from calotype.generation.executors import Executor


@dataclass(frozen=True)
class ImageList:
    """Images of a data set, in order.

    Args:
        data: where they lie.
        numbers: which of its examples they are.
        names: of the images.
        hashes: SHA-256 of each one's encoded bytes.
    """

    data: DataPart
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the images' hashes."""
        return sha256("".join(self.hashes).encode()).hexdigest()

    def pixels(self, rows: Sequence[int], side: int | None) -> Tensor:
        """Some of them, (n, 3, side, side) uint8."""
        return _pixels(self.data, tuple(self.numbers[row] for row in rows), side)

    def chunks(self, side: int) -> list[ImageChunk]:
        """All of them as pieces of work."""
        found = []
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            load = partial(_load, self.data, self.numbers[part], side)
            names, hashes = self.names[part], self.hashes[part]
            found.append(ImageChunk(names=names, hashes=hashes, side=side, load=load))
        return found


def sampled_images(samples: SampleSet) -> ImageList:
    """The images of a sample set."""
    return _listed(open_for_work(samples.folder, "", EVERYTHING), range(len(samples)))


@dataclass(frozen=True)
class Which:
    """Which images of a data set are taken.

    Args:
        split: where there are splits; None = all.
        most: images at most, chosen by hash of their names; None = all.
        names: file names of those that are taken; None = all.
    """

    split: str | None = None
    most: int | None = None
    names: frozenset[str] | None = None


def real_images(path: Path, *, side: int, which: Which | None = None) -> ImageList:
    """The images of a data set.

    Args:
        path: anything that training takes; of shards by size, the smallest that is large enough.
        side: pixels that they are brought to.
        which: of them; None = all.

    Raises:
        UsageError: there are none, or one cannot be read.
    """
    return _listed(*_chosen(path, side, which or Which()))


def check_images(path: Path, *, least: int, side: int, which: Which | None = None) -> None:
    """Refuse a data set, or so many of its images, that there would be too few; none is read.

    Args:
        path: as above.
        least: how many it takes.
        side: as above.
        which: as above; a split is refused where there are no splits.

    Raises:
        UsageError: there are too few, or there is no such split.
    """
    which = which or Which()
    data, numbers = _chosen(path, side, which)
    if which.split is not None and not getattr(source_of(data), "has_splits", False):
        raise UsageError(
            f"got the split {which.split!r:.80} of {path}, which has no splits; leave it out"
        )
    if len(numbers) < least:
        raise UsageError(
            f"got {len(numbers)} images of {path}; expected at least {least}: take more"
        )


def _chosen(path: Path, side: int, which: Which) -> tuple[DataPart, Sequence[int]]:
    """A data set, of shards by size the smallest that is large enough, and which are chosen."""
    if not path.exists():
        raise UsageError(f"got the reference {path}, which does not exist; expected a data set")
    files = parquet_files(path, side)
    part = files[0].parent.name if parts(path) != ("",) else ""
    selection = Selection(split=which.split, variants=1, grammar=_NO_CAPTIONS)
    data = open_for_work(path, part, selection)
    numbers: Sequence[int] = range(data.length)
    if which.names is not None or which.most is not None:
        source = source_of(data)
        places = {source.key(number): number for number in numbers}
        keys = [key for key in places if which.names is None or Path(key).name in which.names]
        most = len(keys) if which.most is None else min(which.most, len(keys))
        numbers = sorted(places[key] for key in first_by_hash(keys, most))
    if not numbers:
        of = "" if which.split is None else f" of the split {which.split!r:.80}"
        raise UsageError(f"got no images{of} in {path} that are asked for; expected some")
    return data, numbers


def _no_captions(
    name: str, keywords: Sequence[str], style: str, *, key: str, count: int
) -> tuple[Caption, ...]:
    """Tables whose captions are in parts have images all the same."""
    return ()


_NO_CAPTIONS = CaptionGrammar(_no_captions, version=0)


def _listed(data: DataPart, numbers: Sequence[int]) -> ImageList:
    source = source_of(data)
    hashes = []
    for number in numbers:
        try:
            hashes.append(sha256(source.image_bytes(number)).hexdigest())
        except BrokenImage as error:
            raise _unreadable(source.key(number), error) from error
    names = tuple(source.key(number) for number in numbers)
    return ImageList(data, tuple(numbers), names, tuple(hashes))


def _load(data: DataPart, numbers: Sequence[int], side: int, rows: range) -> Tensor:
    return _pixels(data, tuple(numbers[row] for row in rows), side)


def _pixels(data: DataPart, numbers: Sequence[int], side: int | None) -> Tensor:
    source, found = source_of(data), []
    for number in numbers:
        try:
            found.append(square_pixels(source.image_bytes(number), side))
        except BrokenImage as error:
            raise _unreadable(source.key(number), error) from error
    return torch.stack(found)


def _unreadable(name: str, error: BrokenImage) -> UsageError:
    return UsageError(f"cannot read the image {name}: {error}; mend it, or move it away")


@dataclass(frozen=True)
class _FeatureJob:
    root: Path
    processes: int


class _FeatureWorker:
    def __init__(self, job: _FeatureJob) -> None:
        self.job = job
        if job.processes > 1:  # each has its part of the cores
            torch.set_num_threads(max(1, usable_cores() // job.processes))

    def __call__(self, work: tuple[ExtractorSpec, ImageChunk]) -> int:
        spec, chunk = work
        compute_chunk(chunk, spec, self.job.root)
        return len(chunk.names)


def image_features(
    images: ImageList, specs: Sequence[ExtractorSpec], *, side: int, root: Path, executor: Executor
) -> dict[ExtractorSpec, StoredFeatures]:
    """Features of images at a side, by each extractor: computed by whoever works, or in `root`.

    Raises:
        UsageError: an image cannot be read.
        CalotypeError: features cannot be computed or written.
    """
    chunks, job = images.chunks(side), _FeatureJob(root, executor.workers)
    # One list of all: workers that have to be started, as on Ray, are started once.
    work = [(spec, chunk) for spec in specs for chunk in chunks]
    for _ in executor.results(work, _FeatureWorker, job):
        pass
    return {spec: features_of(chunks, spec.load(), root) for spec in specs}
