"""The page's charts with the tables beneath them: of pairs, of Elo ratings, of caption ratings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from calotype.evaluation.rating.clustered import Clustered
from calotype.evaluation.rating.preferences import Preference
from calotype.evaluation.rating.report.analysis import Analysis, Report
from calotype.evaluation.rating.report.charts import (
    Point,
    fraction_chart,
    interval_chart,
    point,
)

_MOST_PAIRS = 3  # of a question that have a card each


@dataclass(frozen=True)
class PairTable:
    """A pair's rows, all prompts first: of the kept raters, and of all."""

    title: str
    rows: list[Preference]
    everyone: list[Preference]


@dataclass(frozen=True)
class PairCard:
    """Charts of a pair by category, or of all pairs of a question; names for their legends."""

    title: str
    first: str
    second: str
    fractions: Markup
    rates: Markup
    tables: list[PairTable]


def pair_cards(report: Report) -> list[PairCard]:
    """For each question a card of each pair; where there are many, one of all."""
    everyone = {_key(row): row for row in report.everyone.preferences}
    found = []
    for question in dict.fromkeys(row.question for row in report.kept.preferences):
        asked = [row for row in report.kept.preferences if row.question == question]
        pairs: dict[tuple[str, str], list[Preference]] = {}
        for row in asked:
            pairs.setdefault((row.first, row.second), []).append(row)
        tables = [
            PairTable(f"{first} against {second}", rows, [everyone[_key(row)] for row in rows])
            for (first, second), rows in pairs.items()
        ]
        behind = everyone if report.left_out else {}
        if len(tables) > _MOST_PAIRS:
            whole = [row for row in asked if row.category is None]
            names = ("all pairs", "the first named", "the second named")
            found.append(_card(question, names, whole, behind, tables))
            continue
        for table in tables:
            names = (table.title, table.rows[0].first, table.rows[0].second)
            found.append(_card(question, names, table.rows, behind, [table]))
    return found


def other_charts(report: Report) -> dict[str, Markup]:
    """Under "elo QUESTION" for each question that has ratings, "captions" and "differences"."""
    found = {}
    for question, table in report.kept.elo.items():
        points = [Point(one.set, one.elo, one.low, one.high) for one in table.ratings]
        found[f"elo {question}"] = interval_chart(points, f"Elo, {question}", "Elo")
    if report.kept.means:
        found["captions"] = interval_chart(
            _points(report, _means), "Caption ratings", "mean rating", ends=(0, 100)
        )
    if report.kept.differences:
        found["differences"] = interval_chart(
            _points(report, _differences),
            "Differences of caption ratings",
            "difference of the means",
            line=0,
        )
    return found


def _card(
    question: str,
    names: tuple[str, str, str],
    rows: list[Preference],
    behind: dict[tuple[str | None, ...], Preference],
    tables: list[PairTable],
) -> PairCard:
    """Names: the title's end, and of the two sides."""
    title, first, second = names
    several = len(tables) > 1
    labels = [f"{row.first} – {row.second}" if several else _label(row.category) for row in rows]
    points, bars = [], []
    for label, row in zip(labels, rows, strict=True):
        other = behind.get(_key(row))
        hollow = None if other is None else point("", other.rate, 100)
        points.append(point(label, row.rate, 100, hollow))
        bars.append((label, [part.value for part in row.fractions]))
    said = f"“{question}”, {title}"
    return PairCard(
        f"“{question}”: {title}",
        first,
        second,
        fraction_chart(bars, f"{said}: answers for {first}, indifferent, for {second}"),
        interval_chart(
            points, f"{said}: {first} preferred", "preference rate, %", line=50, ends=(0, 100)
        ),
        tables,
    )


def _key(row: Preference) -> tuple[str | None, ...]:
    return row.question, row.first, row.second, row.category


def _label(category: str | None) -> str:
    return "all prompts" if category is None else category


def _points(report: Report, read: Callable[[Analysis], dict[str, Clustered]]) -> list[Point]:
    """Of the kept raters, with what all say where some are left out."""
    everyone = read(report.everyone) if report.left_out else {}
    return [
        point(label, found, other=point("", everyone[label]) if label in everyone else None)
        for label, found in read(report.kept).items()
    ]


def _means(analysis: Analysis) -> dict[str, Clustered]:
    return {_joined(one.set, one.category): one.mean for one in analysis.means}


def _differences(analysis: Analysis) -> dict[str, Clustered]:
    return {
        _joined(f"{one.set} − {one.reference}", one.category): one.difference
        for one in analysis.differences
    }


def _joined(name: str, category: str | None) -> str:
    return name if category is None else f"{name}, {category}"
