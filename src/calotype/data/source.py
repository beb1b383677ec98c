"""What every source of examples offers, and the account it keeps of what it could not use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calotype.data.example import Caption, Example
from calotype.data.fingerprint import files_fingerprint
from calotype.data.images import decode_image
from calotype.data.text import encodable

NAMED = 20
"""Things that are named of those that are counted."""


@dataclass
class Found:
    """Things of one kind: how many, and the first few by name (or by what several have alike)."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.names) < NAMED and name not in self.names:
            self.names.append(encodable(name))

    def __str__(self) -> str:
        return ", ".join([*self.names[:3], "..."] if len(self.names) > 3 else self.names)


@dataclass
class SourceReport:
    """What a source met and did not use as it was; keys name the examples.

    Args:
        broken: images that cannot be read, with the reason; they count for `broken_fraction`.
        skipped: sound images that the settings leave out (too small), with the reason.
        empty_captions: examples that train as unconditional.
        replaced_captions: examples whose captions were no text and were mended or left out.
        bad_metadata: lines of metadata files that could not be read, with the reason.
        ignored: what lies there and was passed over, by kind.
    """

    broken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    empty_captions: set[str] = field(default_factory=set)
    replaced_captions: set[str] = field(default_factory=set)
    bad_metadata: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, Found] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many of each kind, for logs."""
        return {
            "broken": len(self.broken),
            "skipped": len(self.skipped),
            "empty_captions": len(self.empty_captions),
            "replaced_captions": len(self.replaced_captions),
            "bad_metadata": len(self.bad_metadata),
            "ignored": sum(found.count for found in self.ignored.values()),
        }

    @classmethod
    def merged(cls, reports: Sequence[SourceReport]) -> SourceReport:
        """What several processes met, each in its part of one source."""
        whole = cls()
        for report in reports:
            for kind, keys in vars(report).items():
                vars(whole)[kind].update(keys)
        return whole

    @contextmanager
    def apart(self) -> Iterator[SourceReport]:
        """In a `with` block, what is met goes into a report of its own, which is yielded.

        Work over millions of examples would fill this one's memory with keys.
        """
        mine, found = dict(vars(self)), SourceReport()
        vars(self).update(vars(found))
        try:
            yield found
        finally:
            vars(self).update(mine)


class ExampleSource(Protocol):
    """Examples by number. Sources are read from several threads at once.

    `fingerprint` changes when files were added, removed, or changed in size. `report` fills as
    examples are read.
    """

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of the source's files."""

    @property
    def report(self) -> SourceReport:
        """What could not be used so far."""

    def __len__(self) -> int:
        """Count of examples, broken ones included."""

    def __getitem__(self, index: int) -> Example:
        """Example number `index`; raises `BrokenImage` when its image cannot be read."""

    def key(self, index: int) -> str:
        """Unique and stable name of the example."""

    def captions(self, index: int) -> tuple[Caption, ...]:
        """Captions of the example, without decoding its image."""

    def label(self, index: int) -> str | None:
        """Name of the example's class; None = nobody asked, or the data do not say."""


class EncodedSource(ABC):
    """An `ExampleSource` whose images lie in files: all but those in memory.

    Args:
        root: folder that names are relative to.
        files: of the source, as far as they are listed.
    """

    root: Path
    files: Sequence[Path]
    report: SourceReport

    @property
    def captions_version(self) -> int | None:
        """Of what makes the captions, where a grammar does."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the files' names and sizes."""
        return files_fingerprint(self.root, self.files, captions=self.captions_version)

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        image = decode_image(self.image_bytes(index))
        return Example(self.key(index), image, self.captions(index), self.label(index))

    @abstractmethod
    def key(self, index: int) -> str:
        """Unique and stable name of the example."""

    @abstractmethod
    def captions(self, index: int) -> tuple[Caption, ...]:
        """Captions of the example, without decoding its image."""

    @abstractmethod
    def label(self, index: int) -> str | None:
        """Name of the example's class; None = nobody asked, or the data do not say."""

    @abstractmethod
    def image_bytes(self, index: int) -> bytes:
        """The image as it is stored; raises `BrokenImage` when it cannot be read."""


def locate(ends: Any, index: int) -> tuple[int, int]:
    """Which of several pieces has an example, and its place there; `ends` are those of all."""
    length = int(ends[-1]) if len(ends) else 0
    if not 0 <= index < length:
        raise IndexError(f"got example {index}; expected 0 to {length - 1}")
    number = int(np.searchsorted(ends, index, side="right"))
    return number, index - (int(ends[number - 1]) if number else 0)


class ListSource:
    """Examples held in memory."""

    def __init__(self, examples: Sequence[Example], *, fingerprint: str = "") -> None:
        self.examples = tuple(examples)
        self.fingerprint = fingerprint
        self.report = SourceReport()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def key(self, index: int) -> str:
        """Name of the example."""
        return self.examples[index].key

    def captions(self, index: int) -> tuple[Caption, ...]:
        """Captions of the example."""
        return self.examples[index].captions

    def label(self, index: int) -> str | None:
        """Name of its class."""
        return self.examples[index].label


class Subset:
    """Evenly spaced examples of another source: its first, n-th, 2n-th ..., or all but those.

    Args:
        source: of which it is a part; it has its fingerprint and its report.
        step: n; at least 2 where the rest is wanted.
        rest: whether it is all but those.
    """

    def __init__(self, source: ExampleSource, step: int, *, rest: bool = False) -> None:
        self.source = source
        self.step = step
        self.rest = rest

    @property
    def fingerprint(self) -> str:
        """That of the whole source."""
        return self.source.fingerprint

    @property
    def report(self) -> SourceReport:
        """That of the whole source."""
        return self.source.report

    def __len__(self) -> int:
        whole = len(self.source)
        taken = -(-whole // self.step)
        return whole - taken if self.rest else taken

    def __getitem__(self, index: int) -> Example:
        return self.source[self._place(index)]

    def key(self, index: int) -> str:
        """Name of the example."""
        return self.source.key(self._place(index))

    def captions(self, index: int) -> tuple[Caption, ...]:
        """Captions of the example."""
        return self.source.captions(self._place(index))

    def label(self, index: int) -> str | None:
        """Name of its class."""
        return self.source.label(self._place(index))

    def _place(self, index: int) -> int:
        return index + index // (self.step - 1) + 1 if self.rest else index * self.step


def whole_source(source: ExampleSource) -> ExampleSource:
    """What a source is a part of, which its report is of; itself where it is none."""
    return whole_source(source.source) if isinstance(source, Subset) else source


@dataclass(frozen=True)
class AllCaptions:
    """Every caption that training may use: the first `variants` of every example, then `more`.

    Nothing is held: they are read anew for each loop over them, and a caption that several
    examples have comes several times.
    """

    sources: Sequence[ExampleSource]
    variants: int
    more: Sequence[str] = ()

    def __iter__(self) -> Iterator[str]:
        for source in self.sources:
            yield from all_captions(source, self.variants)
        yield from self.more


def all_captions(source: ExampleSource, variants: int) -> Iterator[str]:
    """The first `variants` captions of every example, one after the other."""
    for index in range(len(source)):
        for caption in source.captions(index)[:variants]:
            yield caption.text


def some_captions(source: ExampleSource, variants: int, *, most: int) -> Iterator[str]:
    """The same of evenly spaced examples, if all may have more than `most` captions."""
    return all_captions(evenly_spaced(source, most // variants), variants)


def evenly_spaced(source: ExampleSource, most: int) -> ExampleSource:
    """The source itself, or evenly spaced examples of it if it has more than `most`."""
    step = -(-len(source) // max(1, most))
    return Subset(source, step) if step > 1 else source
