"""Which samples of a set stand for it in a study: the first, or the best of K by a scorer."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calotype.data.images import BrokenImage
from calotype.errors import UsageError
from calotype.evaluation.rating.blind import BlindImages, Pixels, read_transform, ruined
from calotype.evaluation.rating.study import Ranking, Side, StudyImage, StudySet
from calotype.storage.reading import file_sha256, read_regular

if TYPE_CHECKING:
    from calotype.evaluation.samples import Sample, SampleSet

_MAX_BYTES = 2**30


@dataclass(frozen=True)
class BestOf:
    """Of each `count` samples in a row, the one with the highest score is shown."""

    count: int
    scorer: str
    path: Path  # JSON lines {"key": ..., "score": ...}


@dataclass(frozen=True)
class Source:
    """A set of samples in a study, before its images are chosen."""

    name: str
    samples: SampleSet
    folder: Path  # as the user named it; the samples may have been read from it
    best_of: BestOf | None = None
    transform: str | None = None
    is_reference: bool = False

    @property
    def numbers(self) -> dict[str, list[int]]:
        """By prompt id, the numbers of its samples in order of their index."""
        found = defaultdict(list)
        for number, sample in enumerate(self.samples.samples):
            found[sample.prompt].append(number)
        by_index = self.samples.samples
        return {
            prompt: sorted(numbers, key=lambda number: by_index[number].index)
            for prompt, numbers in found.items()
        }


class Gallery:
    """The samples that a source shows, of each prompt.

    Args:
        source: the set.
        images: of the study, where they are written to.
        side: their width and height in pixels.
        count: that a side shows.
    """

    def __init__(self, source: Source, images: BlindImages, *, side: int, count: int) -> None:
        self.source = source
        self._images = images
        self._side = side
        self._count = count
        self._numbers = source.numbers
        transform = source.transform
        self._transform: Callable[[Pixels], Pixels] = (
            (lambda pixels: pixels) if transform is None else read_transform(transform)
        )
        best = source.best_of
        self._scores = {} if best is None else read_scores(best.path)
        self.facts = StudySet(
            name=source.name,
            folder=str(source.folder),
            sha256=file_sha256(source.samples.folder / "manifest.json"),
            is_reference=source.is_reference,
            best_of=None
            if best is None
            else Ranking(best.count, best.scorer, file_sha256(best.path)),
            transform=transform,
        )

    def show(self, prompt: str) -> Side:
        """The side of a trial that shows the set's images of a prompt.

        Raises:
            UsageError: the prompt has too few samples, or one has no score.
        """
        return self._side_of(prompt, None)

    def show_ruined(self, prompt: str, seed: int) -> Side:
        """The same images, ruined."""
        return self._side_of(prompt, seed)

    def _side_of(self, prompt: str, seed: int | None) -> Side:
        names = []
        for number in self._chosen(prompt):
            sample = self.source.samples.samples[number]
            facts = StudyImage("", "", self.source.name, sample.key, sample.seed, seed is not None)
            names.append(self._images.add(facts, partial(self._pixels, number, seed)))
        return Side(self.source.name, tuple(names))

    def _pixels(self, number: int, seed: int | None) -> Pixels:
        try:
            pixels = self.source.samples.pixels([number], self._side)
        except BrokenImage as error:
            key = self.source.samples.samples[number].key
            raise UsageError(
                f"the image {key!r} of the set {self.source.name!r} cannot be read: {error}; "
                "sample it again"
            ) from error
        shown = self._transform(np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy()))
        return shown if seed is None else ruined(shown, seed + number)

    def _chosen(self, prompt: str) -> Sequence[int]:
        numbers = self._numbers.get(prompt, [])
        each = 1 if self.source.best_of is None else self.source.best_of.count
        if len(numbers) < self._count * each:
            raise UsageError(
                f"got {len(numbers)} samples of the prompt {prompt!r} in the set "
                f"{self.source.name!r}; expected {self._count * each}: generate more, or show "
                "fewer with --images"
            )
        groups = [numbers[each * place : each * (place + 1)] for place in range(self._count)]
        return [max(group, key=self._score) if each > 1 else group[0] for group in groups]

    def _score(self, number: int) -> float:
        sample: Sample = self.source.samples.samples[number]
        score = self._scores.get(sample.key)
        if score is None:
            best = self.source.best_of
            path = None if best is None else best.path
            raise UsageError(f"got no score of the sample {sample.key!r} in {path}; score them all")
        return score


def read_scores(path: Path) -> Mapping[str, float]:
    """The scores of samples by key, from JSON lines `{"key": ..., "score": ...}`.

    Raises:
        UsageError: the file is not so.
    """
    expected = 'expected lines of {"key": ..., "score": a number}'
    scores: dict[str, float] = {}
    try:
        lines = read_regular(path, most_bytes=_MAX_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the scores {path}: {reason}; {expected}") from error
    for number, line in enumerate(lines, 1):
        try:
            record: Any = json.loads(line)
            key, score = record["key"], record["score"]
            if not isinstance(key, str) or isinstance(score, bool) or not math.isfinite(score):
                raise ValueError(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"got line {number} of {path}: {line[:80]!r}; {expected}") from error
        scores[key] = float(score)
    return scores
