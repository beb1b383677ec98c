"""The rows of a sample set as numbers are taken of them: by prompt, by image, by category."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.evaluation.metrics.intervals import (
    blocks_by_prompt,
    clustered_fraction,
    clustered_mean,
)
from calotype.evaluation.metrics.rows import Features
from calotype.evaluation.results import Number, Scores, number_of
from calotype.evaluation.samples import Sample


@dataclass
class Found:
    """Numbers of the set and scores of its samples, as they are found."""

    scores: Scores
    numbers: list[Number] = field(default_factory=list)

    def add_scores(self, name: str, values: Any) -> None:
        """A column more: a number a sample."""
        self.scores = self.scores.with_column(name, values)


class Rows:
    """The samples of a set, in order.

    Args:
        samples: of the set.
        each: images of every prompt; None where prompts have different numbers of them.
    """

    def __init__(self, samples: Sequence[Sample], each: int | None) -> None:
        self.samples = tuple(samples)
        self.each = each
        self.prompts = [sample.prompt for sample in samples]
        self.blocks = blocks_by_prompt(self.prompts)  # of the jackknife
        self._index = torch.tensor([sample.index for sample in samples])

    def __len__(self) -> int:
        return len(self.samples)

    def by_index(self, values: Features) -> Iterator[Tensor]:
        """The first image of every prompt, the second, ...; nothing where each has one."""
        if self.each is not None and self.each > 1 and len(self) >= 2 * self.each:
            yield from (values[self._index == number] for number in range(self.each))

    def by_category(self) -> Iterator[tuple[str, list[int]]]:
        """Categories in the order in which they come, with their rows."""
        rows: dict[str, list[int]] = {}
        for number, sample in enumerate(self.samples):
            if sample.category is not None:
                rows.setdefault(sample.category, []).append(number)
        yield from rows.items()

    def prompts_of(self, rows: Sequence[int]) -> list[str]:
        """The prompts of some rows."""
        return [self.prompts[row] for row in rows]


def add_mean(
    found: Found, rows: Rows, metric: str, values: Tensor, *, fraction: bool = False, **facts: Any
) -> None:
    """A score of each sample, its mean, and the mean of every category.

    Args:
        found: what it is added to.
        rows: of the set.
        metric: name of the score.
        values: (N,); NaN = a sample has none.
        fraction: whether they are 1 or 0, so that the interval lies between.
        **facts: those of `Number`.
    """
    facts = {"higher_is_better": True, **facts}
    mean = clustered_fraction if fraction else clustered_mean
    features = facts.get("features")
    found.add_scores(metric if features is None else f"{metric} {features}", values)
    has = values.isfinite()
    taken = [row for row in range(len(rows)) if bool(has[row])]
    whole = number_of(mean(values[taken], rows.prompts_of(taken)), metric, **facts)
    seeds = tuple(float(part.nanmean()) for part in rows.by_index(values))
    found.numbers.append(replace(whole, seeds=seeds))
    for category, members in rows.by_category():
        some = [row for row in members if bool(has[row])]
        if some:
            estimate = mean(values[some], rows.prompts_of(some))
            found.numbers.append(number_of(estimate, metric, group=category, **facts))


def as_floats(values: Sequence[float | None]) -> np.ndarray:
    """Numbers, with NaN for those that are None."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
