"""The page of one evaluation: its numbers, its categories, and samples, failures first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calotype.evaluation.report.figures import (
    Shown,
    decimals,
    facts,
    interval,
    shown,
    worst_first,
)
from calotype.evaluation.results import CHECKED, Number, Results, Scores
from calotype.evaluation.samples import SampleSet
from calotype.pages.page import render_page, write_page

PAGE_FILE = "index.html"
_SHOWN_EACH = 12
_SHOWN_ALL = 48


@dataclass(frozen=True)
class _Group:
    """A category, or all samples: numbers of it, why people have to judge it, some samples."""

    name: str
    numbers: list[Number]
    left: str
    samples: list[Shown]
    count: int


def write_set_page(folder: Path, results: Results, scores: Scores, samples: SampleSet) -> int:
    """Write `folder`/index.html; its size in bytes."""
    html = render_page(
        "calotype.evaluation.report",
        "set.html.j2",
        title=f"{results.samples.name} on {results.samples.suite.name}",
        numbers=[number for number in results.numbers if number.group is None],
        groups=_groups(results, scores, samples),
        others=_others(results, scores),
        checked=CHECKED,
        facts=facts(results),
        decimals=decimals,
        interval=interval,
    )
    return write_page(folder / PAGE_FILE, html)


def _others(results: Results, scores: Scores) -> list[Number]:
    """Numbers of parts that are no categories: losses of stages."""
    categories = {sample.category for sample in scores.samples} | {None}
    return [number for number in results.numbers if number.group not in categories]


def _groups(results: Results, scores: Scores, samples: SampleSet) -> list[_Group]:
    rows: dict[str, list[int]] = {}
    for row, sample in enumerate(scores.samples):
        rows.setdefault(sample.category or "", []).append(row)
    most = _SHOWN_ALL if len(rows) == 1 else _SHOWN_EACH
    groups = []
    for name, members in rows.items():
        chosen = worst_first(scores, members)[:most]
        groups.append(
            _Group(
                name or "all prompts",
                [one for one in results.numbers if one.group == name],
                results.left_to_people.get(name, ""),
                [shown(samples, scores, row) for row in chosen],
                len(members),
            )
        )
    return groups
