"""Read everything once and say what is there: counts, sizes, broken files, duplicates, captions.

Memory does not grow with the set: what images look like lies on disk (`looks.py`), numbers are
counted by value, and of lists of keys the first `LISTED` are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calotype.data.columns import Selection
from calotype.data.grammar import CaptionGrammar
from calotype.data.images import BrokenImage, decode_image
from calotype.data.looks import RECORD, LookBook, imagehash, looks
from calotype.data.open import parts
from calotype.data.source import EncodedSource, Found
from calotype.data.work import Chunk, Chunks, Work, open_for_work, source_of

CHUNK = 256

LISTED = 100_000
"""Keys that a report names of each kind."""


@dataclass(frozen=True)
class ImageFacts:
    """What was found of one example; `reason` says why an image is broken."""

    key: str
    width: int = 0
    height: int = 0
    looks: tuple[int, int] = (0, 0)
    caption_lengths: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class ChunkFacts:
    """What was found of a chunk of examples; `replaced` are keys."""

    chunk: Chunk
    images: tuple[ImageFacts, ...]
    replaced: frozenset[str]


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, of which there is one more."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class PartReport:
    """What one part of a data set holds; of each kind the first `LISTED` keys are named.

    Args:
        examples: all of them.
        usable: with an image that can be read.
        broken: reasons by key.
        duplicates: groups of keys whose images look the same (equal perceptual and colour hash).
        empty_captions: examples that train as unconditional.
        replaced_captions: examples whose captions were no text, mended or left out.
        bad_metadata: reasons by file and line.
        ignored: what lies there and is passed over, by kind.
        counts: how many there are of each kind, named or not; of duplicates those that repeat.
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
    ignored: dict[str, Found]
    counts: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def broken_share(self) -> float:
        """Share of broken images, in [0, 1]."""
        return self.counts["broken"] / self.examples if self.examples else 0.0


KINDS = ("broken", "duplicates", "empty_captions", "replaced_captions", "bad_metadata", "ignored")
"""Keys of `PartReport.counts`."""


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
            **{kind: sum(r.counts[kind] for r in reports) for kind in KINDS},
            "parts": {
                name: {**asdict(report), "broken_share": report.broken_share}
                for name, report in self.parts.items()
            },
        }


def verify_data(
    path: Path, *, grammar: CaptionGrammar | None = None, work: Work | None = None
) -> DataReport:
    """Read and decode every example of the data at `path`, of whatever split.

    Args:
        path: anything that `open_source` takes.
        grammar: as there.
        work: who does it, and hears of each `ChunkFacts`.

    Raises:
        UsageError: there is nothing at `path`, or it cannot be read as what it seems to be.
        MissingExtra: a package of the extra `data` is not installed.
    """
    imagehash()
    work, reports = work or Work(), {}
    for part in parts(path):
        data = open_for_work(path, part, Selection(None, grammar=grammar))
        with LookBook(data.length) as book:
            tally = _Tally(book)
            for facts in work.over(Chunks(data, CHUNK), inspect_chunk):
                tally.add(facts)
            reports[part] = tally.report(source_of(data))
    return DataReport(str(path), reports)


def inspect_chunk(chunk: Chunk) -> ChunkFacts:
    """Decode the images of a chunk and measure its captions."""
    source = source_of(chunk.data)
    with source.report.apart() as found:
        images = tuple(_inspect(source, index) for index in range(chunk.start, chunk.stop))
    replaced = found.replaced_captions | source.report.replaced_captions
    return ChunkFacts(chunk, images, frozenset(f.key for f in images if f.key in replaced))


def _inspect(source: EncodedSource, index: int) -> ImageFacts:
    key = source.key(index)
    lengths = tuple(len(caption.text) for caption in source.captions(index) if caption.text)
    try:
        image = decode_image(source.image_bytes(index))
    except BrokenImage as error:
        return ImageFacts(key, caption_lengths=lengths, reason=str(error))
    height, width = image.shape[:2]
    return ImageFacts(key, width, height, looks(image), lengths)


class _First:
    """Of things by number, those with the lowest numbers, in whatever order they come."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[int, tuple[str, str]] = {}
        self.count = 0

    def add(self, number: int, key: str, reason: str = "") -> None:
        self.count += 1
        self._kept[number] = (key, reason)
        if len(self._kept) > 2 * self._most:
            self._kept = dict(sorted(self._kept.items())[: self._most])

    def items(self) -> dict[str, str]:
        """Reasons by key."""
        return dict(self._kept[number] for number in sorted(self._kept)[: self._most])


class _Tally:
    """Adds up the facts of chunks, which come in any order."""

    def __init__(self, book: LookBook) -> None:
        self._book = book
        self._examples = 0
        self._broken, self._empty, self._replaced = _First(LISTED), _First(LISTED), _First(LISTED)
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._captions: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()

    def add(self, facts: ChunkFacts) -> None:
        """Take in a chunk."""
        self._examples += len(facts.images)
        records = []
        for number, image in enumerate(facts.images, facts.chunk.start):
            self._captions[len(image.caption_lengths)] += 1
            self._lengths.update(image.caption_lengths)
            if not image.caption_lengths:
                self._empty.add(number, image.key)
            if image.key in facts.replaced:
                self._replaced.add(number, image.key)
            if image.reason is not None:
                self._broken.add(number, image.key, image.reason)
                continue
            self._sizes[image.width, image.height] += 1
            records.append((*image.looks, number))
        self._book.add(np.array(records, RECORD))

    def report(self, source: EncodedSource) -> PartReport:
        """The report of everything taken in."""
        duplicates = self._book.duplicates(LISTED)
        bad = list(source.report.bad_metadata.items())
        numbers = (
            self._broken.count,
            duplicates.repeated,
            self._empty.count,
            self._replaced.count,
            len(bad),
            source.report.counts()["ignored"],
        )
        frequent = sorted(self._sizes.items(), key=lambda item: (-item[1], item[0]))[:20]
        return PartReport(
            examples=self._examples,
            usable=sum(self._sizes.values()),
            broken=self._broken.items(),
            duplicates=tuple(tuple(map(source.key, group)) for group in duplicates.groups),
            empty_captions=tuple(self._empty.items()),
            replaced_captions=tuple(self._replaced.items()),
            bad_metadata=dict(bad[:LISTED]),
            ignored=dict(source.report.ignored),
            counts=dict(zip(KINDS, numbers, strict=True)),
            sizes={f"{width}x{height}": count for (width, height), count in frequent},
            histograms=self._histograms(),
            fingerprint=source.fingerprint,
        )

    def _histograms(self) -> dict[str, Histogram]:
        widths, heights, aspects = Counter[float](), Counter[float](), Counter[float]()
        for (width, height), count in self._sizes.items():
            widths[width] += count
            heights[height] += count
            aspects[width / height] += count
        return {
            "width in pixels": _histogram(widths),
            "height in pixels": _histogram(heights),
            "width / height": _histogram(aspects),
            "captions of a picture": _histogram(self._captions),
            "characters of a caption": _histogram(self._lengths),
        }


def _histogram(counted: Mapping[int, int] | Mapping[float, int], bins: int = 20) -> Histogram:
    """Counts in equal bins from the smallest to the largest value; one bin if all are equal."""
    if not counted:
        return Histogram((), ())
    values = np.array(list(counted), np.float64)
    weights = np.array(list(counted.values()), np.int64)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Histogram((low, high), (int(weights.sum()),))
    counts, edges = np.histogram(values, bins, weights=weights)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
