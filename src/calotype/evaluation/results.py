"""What an evaluation found, and the two files that keep it.

`results.json` holds the numbers of the whole set, `scores.parquet` those of each sample: what
`compare` pairs by prompt and seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calotype.config.typed_json import load_config, to_dict
from calotype.data.columns import READ_ERRORS, pyarrow, reason_of
from calotype.data.shard_file import write_shard_file
from calotype.errors import UsageError
from calotype.evaluation.metrics.intervals import Estimate
from calotype.evaluation.samples import Manifest, Sample
from calotype.storage.files import write_file

RESULTS_FILE, SCORES_FILE = "results.json", "scores.parquet"
NO_JUDGE = "no judge"
"""Begins the note of a number that chose the images it is of."""

CHECKED = "right"
"""Of the column of scores that the suite's own checks give: 1, 0, or nothing for people to say."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number of a whole set.

    Args:
        metric: "FID", "KID", "CLIP score", ...
        features: name of the extractor; None = no features.
        value: of all samples.
        count: of the samples, N.
        side: of the images that it is of, in pixels; None = it is of other things than pixels.
        higher_is_better: None = neither.
        low: lower end of the 95 % interval; None = there is none.
        high: upper end.
        seeds: the value of each of the prompts' images alone, where each prompt has several.
        notes: why it is to be read with care.
        group: a part of the samples that it is of, e.g. a category; None = all.
    """

    metric: str
    value: float
    count: int
    higher_is_better: bool | None
    features: str | None = None
    side: int | None = None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    group: str | None = None

    @property
    def label(self) -> str:
        """What is printed: `FID[lite0, N=5000, 256px]`."""
        facts = [] if self.features is None else [self.features]
        facts.append(f"N={self.count}")
        if self.side is not None:
            facts.append(f"{self.side}px")
        return f"{self.metric}[{', '.join(facts)}]"

    @property
    def spread(self) -> float | None:
        """The standard deviation over the prompts' images, at least two; None = there is none."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None

    @property
    def is_judge(self) -> bool:
        """Whether it says anything of the images: not where it chose or guided them."""
        return not any(note.startswith(NO_JUDGE) for note in self.notes)

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What finds the same number of another set."""
        return self.metric, self.features, self.group


def number_of(estimate: Estimate, metric: str, **facts: Any) -> Number:
    """An estimate as a number of the results; `facts` are those of `Number`."""
    notes = tuple(facts.pop("notes", ()))
    notes += () if estimate.note is None else (estimate.note,)
    low, high = (
        None if end is None or not math.isfinite(end) else end
        for end in (estimate.low, estimate.high)
    )
    return Number(
        metric=metric, value=estimate.value, count=estimate.count, low=low, high=high, notes=notes,
        **facts,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExtractorNote:
    """Which extractor gave features: its name, fingerprint and resize, in words."""

    name: str
    fingerprint: str
    description: str


@dataclass(frozen=True, kw_only=True)
class ReferenceNote:
    """The real images that samples were compared with.

    Args:
        name: of their folder.
        fingerprint: SHA-256 over the images' hashes.
        count: of the images.
        split: that was taken, where they have splits; None = all.
    """

    name: str
    fingerprint: str
    count: int
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation found of a set of samples.

    Args:
        samples: their manifest.
        side: pixels that images were brought to before features.
        reference: None = there was none.
        extractors: whose features were compared.
        numbers: of the whole set, and of its categories.
        options: with which `evaluate` measures the same again.
        left_to_people: categories that no check can judge, and why.
        version: of calotype.
        format: of this file.
    """

    samples: Manifest
    side: int
    reference: ReferenceNote | None
    extractors: tuple[ExtractorNote, ...]
    numbers: tuple[Number, ...]
    options: Mapping[str, Any]
    version: str
    left_to_people: Mapping[str, str] = field(default_factory=dict)
    format: int = 1

    def number(
        self, metric: str, features: str | None = None, group: str | None = None
    ) -> Number | None:
        """One of the numbers, or None."""
        wanted = (metric, features, group)
        return next((one for one in self.numbers if one.key == wanted), None)

    def of_group(self, metric: str) -> dict[str, Number]:
        """A number of every category that has one, by category."""
        found = (one for one in self.numbers if one.metric == metric and one.group is not None)
        return {str(one.group): one for one in found}


@dataclass(frozen=True)
class Scores:
    """Numbers of each sample, in the set's order: a column a score; NaN = it has none."""

    samples: tuple[Sample, ...]
    columns: Mapping[str, np.ndarray]

    def with_column(self, name: str, values: Any) -> Scores:
        """These and one more."""
        column = np.asarray(values, dtype=np.float64)
        return replace(self, columns={**self.columns, name: column})


def write_results(folder: Path, results: Results, scores: Scores) -> None:
    """Write both files; the numbers last, for they say that all is there.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    pa = pyarrow()
    rows = {name: [getattr(s, name) for s in scores.samples] for name in _ROW}
    columns = {name: pa.array(column, pa.float64()) for name, column in scores.columns.items()}
    write_shard_file(folder / SCORES_FILE, pa.table({**rows, **columns}))
    text = json.dumps(to_dict(results), indent=1, allow_nan=False) + "\n"
    write_file(folder / RESULTS_FILE, text.encode())


def read_results(folder: Path) -> tuple[Results, Scores]:
    """What an evaluation wrote.

    Raises:
        UsageError: there is none.
        ConfigError: it is damaged.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise UsageError(
            f"got {folder}, which holds no {RESULTS_FILE}; expected a folder of: calotype evaluate"
        )
    results = load_config(path, Results)
    try:
        table = pyarrow().parquet.read_table(folder / SCORES_FILE)
        rows = zip(*(table[name].to_pylist() for name in _ROW), strict=True)
        samples = tuple(Sample(*row) for row in rows)
        names = [name for name in table.column_names if name not in _ROW]
        columns = {name: np.asarray(table[name].to_numpy(), np.float64) for name in names}
    except READ_ERRORS as error:
        raise UsageError(
            f"cannot read {folder / SCORES_FILE}: {reason_of(error)}; evaluate again"
        ) from error
    return results, Scores(samples, columns)


_ROW = ("key", "caption", "prompt", "category", "index", "seed")
