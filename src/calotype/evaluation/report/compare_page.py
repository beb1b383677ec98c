"""The page that compares sets: one table, paired differences, images side by side by prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from calotype.evaluation.compare import Difference, Entry, differences
from calotype.evaluation.report.figures import Shown, decimals, facts, interval, shown
from calotype.evaluation.results import CHECKED, NO_JUDGE, Number
from calotype.pages.page import render_page, write_page

_MOST_PROMPTS = 60


@dataclass(frozen=True)
class _Line:
    """A number of every set; None = it has none. `best` are places of the best ones."""

    label: str
    better: str
    numbers: list[Number | None]
    best: list[int]


@dataclass(frozen=True)
class _Prompt:
    """A prompt, with one image of every set that has one."""

    caption: str
    category: str | None
    samples: list[Shown | None]


def write_compare_page(path: Path, entries: Sequence[Entry]) -> int:
    """Write the page; its size in bytes."""
    html = render_page(
        "calotype.evaluation.report",
        "compare.html.j2",
        title=" and ".join(entry.name for entry in entries),
        names=[entry.name for entry in entries],
        lines=_lines(entries, grouped=False),
        group_lines=_lines(entries, grouped=True),
        differences=differences(entries),
        verdict=partial(_verdict, choosers=_choosers(entries)),
        prompts=_prompts(entries),
        count=len(entries[0].samples.suite.prompts),
        facts=[(entry.name, facts(entry.results)) for entry in entries],
        decimals=decimals,
        interval=interval,
        checked=CHECKED,
    )
    return write_page(path, html)


def _lines(entries: Sequence[Entry], *, grouped: bool) -> list[_Line]:
    keys = dict.fromkeys(
        number.key
        for entry in entries
        for number in entry.results.numbers
        if (number.group is not None) == grouped
    )
    lines = []
    for metric, features, group in keys:
        numbers = [entry.results.number(metric, features, group) for entry in entries]
        known = next(number for number in numbers if number is not None)
        label = metric if features is None else f"{metric}[{features}]"
        better = {True: "higher", False: "lower", None: ""}[known.higher_is_better]
        text = label if group is None else f"{group}: {label}"
        lines.append(_Line(text, better, numbers, _best(numbers)))
    return lines


def _best(numbers: Sequence[Number | None]) -> list[int]:
    known = {place: one for place, one in enumerate(numbers) if one is not None}
    first = next(iter(known.values()), None)
    if first is None or first.higher_is_better is None or len(known) < 2:
        return []
    if not all(one.is_judge for one in known.values()):
        return []
    best = (max if first.higher_is_better else min)(one.value for one in known.values())
    return [place for place, one in known.items() if one.value == best]


def _choosers(entries: Sequence[Entry]) -> set[str]:
    """Scores that chose the images of a set, which they are no judges of."""
    numbers = (number for entry in entries for number in entry.results.numbers)
    return {f"{one.metric} {one.features}" for one in numbers if not one.is_judge}


def _verdict(difference: Difference, *, choosers: Collection[str]) -> str:
    """What a paired difference says, in words."""
    if difference.score in choosers:
        return f"{NO_JUDGE}: it chose images of a set"
    low, high = difference.estimate.low, difference.estimate.high
    if low is None or high is None:
        return "too few prompts to say"
    return "no difference is shown" if low <= 0 <= high else "differs"


def _prompts(entries: Sequence[Entry]) -> list[_Prompt]:
    """Prompts with one image of each set: failures first, then where the sets differ most."""
    rows = [
        {s.prompt: row for row, s in reversed(list(enumerate(entry.scores.samples)))}
        for entry in entries
    ]
    suite = [p for p in entries[0].samples.suite.prompts if any(p.id in own for own in rows)]
    order = sorted(
        range(len(suite)), key=lambda n: (*_worth(entries, rows, suite[n].id), n)
    )[:_MOST_PROMPTS]  # fmt: skip
    found = []
    for number in order:
        prompt = suite[number]
        samples: list[Shown | None] = [
            shown(entry.samples, entry.scores, own[prompt.id]) if prompt.id in own else None
            for entry, own in zip(entries, rows, strict=True)
        ]
        found.append(_Prompt(prompt.caption, prompt.category, samples))
    return found


def _worth(
    entries: Sequence[Entry], rows: Sequence[dict[str, int]], prompt: str
) -> tuple[float, float]:
    """How early a prompt is shown: by its failures, and then by how far the scores are apart."""
    right, fits = [], []
    for entry, own in zip(entries, rows, strict=True):
        columns = entry.scores.columns
        clip = next((v for name, v in columns.items() if name.startswith("CLIP score")), None)
        if prompt in own:
            right += [columns[CHECKED][own[prompt]]] if CHECKED in columns else []
            fits += [] if clip is None else [clip[own[prompt]]]
    known = [value for value in right if np.isfinite(value)]
    apart = float(np.ptp(fits)) if fits else 0.0
    return (float(np.mean(known)) if known else 0.5), -apart
