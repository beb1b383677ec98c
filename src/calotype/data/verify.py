"""Read everything once and say what is there: counts, sizes, broken files, duplicates, captions."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.data.open import parts
from calotype.data.pictures import BrokenPicture, decode_picture
from calotype.data.source import EncodedSource
from calotype.data.work import Chunk, chunks_of, open_for_work, source_of, work_over
from calotype.errors import MissingExtra

CHUNK = 256
_HASH_SIDE = 128


@dataclass(frozen=True)
class PictureFacts:
    """What was found of one example; `reason` says why a picture is broken."""

    key: str
    width: int = 0
    height: int = 0
    looks: str = ""
    caption_lengths: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class ChunkFacts:
    """What was found of a chunk of examples."""

    chunk: Chunk
    pictures: tuple[PictureFacts, ...]
    replaced: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, of which there is one more."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class PartReport:
    """What one part of a data set holds; every list of keys is complete.

    Args:
        examples: all of them.
        usable: with a picture that can be read.
        broken: reasons by key.
        duplicates: groups of keys whose pictures look the same (equal perceptual and colour hash).
        empty_captions: examples that train as unconditional.
        replaced_captions: examples whose captions were no UTF-8.
        bad_metadata: reasons by file and line.
        sizes: the most frequent sizes, "WIDTHxHEIGHT", with their counts.
        histograms: of widths, heights, aspect ratios, captions an example, and their characters.
        fingerprint: of the files' names and sizes.
    """

    examples: int
    usable: int
    broken: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    empty_captions: tuple[str, ...]
    replaced_captions: tuple[str, ...]
    bad_metadata: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def broken_share(self) -> float:
        """Share of broken pictures, in [0, 1]."""
        return len(self.broken) / self.examples if self.examples else 0.0


@dataclass(frozen=True)
class DataReport:
    """Reports by part; data that have no parts have one named ""."""

    data: str
    parts: dict[str, PartReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the totals on top."""
        reports = self.parts.values()
        return {
            "data": self.data,
            "examples": sum(r.examples for r in reports),
            "usable": sum(r.usable for r in reports),
            "broken": sum(len(r.broken) for r in reports),
            "duplicates": sum(len(group) - 1 for r in reports for group in r.duplicates),
            "empty_captions": sum(len(r.empty_captions) for r in reports),
            "replaced_captions": sum(len(r.replaced_captions) for r in reports),
            "bad_metadata": sum(len(r.bad_metadata) for r in reports),
            "parts": {
                name: {**asdict(report), "broken_share": report.broken_share}
                for name, report in self.parts.items()
            },
        }


def verify_data(
    path: Path,
    *,
    processes: int = 1,
    ray: str | None = None,
    on_examples: Callable[[int], None] | None = None,
) -> DataReport:
    """Read and decode every example of the data at `path`, of whatever split.

    Args:
        path: anything that `open_source` takes.
        processes: local processes.
        ray: address of a Ray cluster that does the work instead; see `ray_jobs.connected`.
        on_examples: called with the number of examples newly done, for progress.

    Raises:
        UsageError: there is nothing at `path`, or it cannot be read as what it seems to be.
        MissingExtra: a package of the extra `data` is not installed.
    """
    _imagehash()
    reports = {}
    for part in parts(path):
        data = open_for_work(path, part)
        chunks = chunks_of(data, size=CHUNK)
        found = []
        for facts in work_over(chunks, inspect_chunk, processes=processes, ray=ray):
            found.append(facts)
            if on_examples is not None:
                on_examples(len(facts.pictures))
        found.sort(key=lambda facts: facts.chunk.start)
        reports[part] = _summarise(source_of(data), found)
    return DataReport(str(path), reports)


def inspect_chunk(chunk: Chunk) -> ChunkFacts:
    """Decode the pictures of a chunk and measure its captions."""
    source = source_of(chunk.data)
    pictures = tuple(_inspect(source, index) for index in range(chunk.start, chunk.stop))
    replaced = {facts.key for facts in pictures} & source.report.replaced_captions
    return ChunkFacts(chunk, pictures, tuple(sorted(replaced)))


def _inspect(source: EncodedSource, index: int) -> PictureFacts:
    key = source.key(index)
    lengths = tuple(len(caption.text) for caption in source.captions(index) if caption.text)
    try:
        image = decode_picture(source.picture_bytes(index))
    except BrokenPicture as error:
        return PictureFacts(key, caption_lengths=lengths, reason=str(error))
    height, width = image.shape[:2]
    return PictureFacts(key, width, height, _looks(image), lengths)


def _looks(image: NDArray[np.uint8]) -> str:
    """Perceptual hash (DCT of the brightness) and colour hash: equal ones look the same.

    The perceptual hash alone takes a red heart and a blue one for the same.
    """
    hashes = _imagehash()
    picture = Image.fromarray(image).resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    return f"{hashes.phash(picture)}{hashes.colorhash(picture)}"


def _summarise(source: EncodedSource, found: Iterable[ChunkFacts]) -> PartReport:
    found = list(found)
    pictures = [facts for chunk in found for facts in chunk.pictures]
    sound = [facts for facts in pictures if facts.reason is None]
    alike: dict[str, list[str]] = {}
    for facts in sound:
        alike.setdefault(facts.looks, []).append(facts.key)
    sizes = Counter(f"{facts.width}x{facts.height}" for facts in sound)
    lengths = [length for facts in pictures for length in facts.caption_lengths]
    return PartReport(
        examples=len(pictures),
        usable=len(sound),
        broken={facts.key: facts.reason for facts in pictures if facts.reason is not None},
        duplicates=tuple(tuple(keys) for keys in alike.values() if len(keys) > 1),
        empty_captions=tuple(facts.key for facts in pictures if not facts.caption_lengths),
        replaced_captions=tuple(key for chunk in found for key in chunk.replaced),
        bad_metadata=dict(source.report.bad_metadata),
        sizes=dict(sizes.most_common(20)),
        histograms={
            "width in pixels": _histogram([facts.width for facts in sound]),
            "height in pixels": _histogram([facts.height for facts in sound]),
            "width / height": _histogram([facts.width / facts.height for facts in sound]),
            "captions of a picture": _histogram([len(f.caption_lengths) for f in pictures]),
            "characters of a caption": _histogram(lengths),
        },
        fingerprint=source.fingerprint,
    )


def _histogram(values: Iterable[float], bins: int = 20) -> Histogram:
    """Counts in equal bins from the smallest to the largest value; one bin if all are equal."""
    array = np.array(list(values), dtype=np.float64)
    if array.size == 0:
        return Histogram((), ())
    low, high = float(array.min()), float(array.max())
    if low == high:
        return Histogram((low, high), (array.size,))
    counts, edges = np.histogram(array, bins)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


@functools.cache
def _imagehash() -> Any:
    try:
        return importlib.import_module("imagehash")
    except ImportError as error:
        raise MissingExtra("data", "imagehash") from error
