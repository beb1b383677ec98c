"""The report's two files: `report.json` with all numbers, `report.html` that shows them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from calotype.evaluation.rating.clustered import Clustered
from calotype.evaluation.rating.judgements import CONTROL_LIMIT, StudyResults
from calotype.evaluation.rating.power import judgements_needed
from calotype.evaluation.rating.preferences import Preference
from calotype.evaluation.rating.report.analysis import Analysis, Report, analyse
from calotype.evaluation.rating.report.charts import (
    Point,
    fraction_chart,
    interval_chart,
    point,
)
from calotype.evaluation.rating.report.verdicts import percent, signed
from calotype.pages.page import render_page, write_page
from calotype.storage.files import write_error, write_file

_FORMAT = 1


def write_report(results: StudyResults, out: Path) -> Report:
    """Write `report.json` and `report.html` into the folder `out`, which is made where needed.

    Raises:
        CalotypeError: they cannot be written.
    """
    report = analyse(results)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    write_file(out / "report.json", json_of(report))
    write_page(out / "report.html", render(report))
    return report


def json_of(report: Report) -> bytes:
    """All numbers of a report; single answers are left to the export."""
    study = replace(
        report.study,
        conditions=dict(report.study.conditions),
        judgements=(),
        ratings=(),
        controls=(),
    )
    found = asdict(replace(report, study=study))
    for answers in ("judgements", "ratings", "controls"):
        del found["study"][answers]
    text = json.dumps({"format": _FORMAT, **found}, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def render(report: Report) -> str:
    """The page's HTML. All text of the study is escaped: names and categories are anybody's."""
    return render_page(
        "calotype.evaluation.rating.report",
        "report.html.j2",
        study=report.study,
        report=report,
        tiles=_tiles(report),
        pairs=_pairs(report),
        charts=_charts(report),
        limit=f"{CONTROL_LIMIT:.0%}".replace("%", " %"),
        known={rate: judgements_needed(rate) for rate in (0.6, 0.55)},
        unit=_unit(report.study),
        percent=percent,
        signed=signed,
        interval=_interval,
        p_text=_p_text,
    )


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """Name, value and a remark of the numbers at the top."""
    kept, study = report.kept, report.study
    least = min((verdict.reached for verdict in kept.verdicts), default=0)
    out = len(report.left_out)
    alphas = [one.alpha for one in kept.agreement if one.alpha is not None]
    rows = [
        ("answers", f"{kept.answers:,}", "closed" if study.closed else "still open"),
        ("reached of planned", f"{least:,} / {study.planned:,}", _unit(study)),
        ("raters", f"{kept.raters:,}", f"{out} left out" if out else "none left out"),
        ("prompts", f"{kept.prompts:,}", ""),
    ]
    if alphas:
        several = f"least of {len(alphas)} questions" if len(alphas) > 1 else ""
        rows.append(("Krippendorff's α", f"{min(alphas):.2f}", several))
    return rows


def _unit(study: StudyResults) -> str:
    """What the planned number is of."""
    return "of each set" if study.protocol == "caption" else "of each question and pair"


def _pairs(report: Report) -> list[dict[str, Any]]:
    """For each question and pair: rows of the kept raters' answers, of all raters', and charts."""
    groups: dict[tuple[str, str, str], list[Preference]] = {}
    for row in report.kept.preferences:
        groups.setdefault((row.question, row.first, row.second), []).append(row)
    everyone = {(*_key(row), row.category): row for row in report.everyone.preferences}
    return [
        {
            "question": question,
            "first": first,
            "second": second,
            "rows": rows,
            "everyone": [everyone[*_key(row), row.category] for row in rows],
            "rates": _rate_chart(rows, everyone if report.left_out else {}),
            "fractions": _fraction_chart(rows),
        }
        for (question, first, second), rows in groups.items()
    ]


def _key(row: Preference) -> tuple[str, str, str]:
    return row.question, row.first, row.second


def _label(category: str | None) -> str:
    return "all prompts" if category is None else category


def _rate_chart(rows: list[Preference], everyone: dict[Any, Preference]) -> Markup:
    points = []
    for row in rows:
        other = everyone.get((*_key(row), row.category))
        behind = point("", other.rate, 100) if other else None
        points.append(point(_label(row.category), row.rate, 100, behind))
    first = rows[0]
    title = f"{first.question}: {first.first} preferred to {first.second}"
    return interval_chart(points, title, "preference rate, %", line=50, ends=(0, 100))


def _fraction_chart(rows: list[Preference]) -> Markup:
    first = rows[0]
    title = f"{first.question}: answers for {first.first}, indifferent, for {first.second}"
    return fraction_chart(
        [(_label(row.category), [part.value for part in row.fractions]) for row in rows], title
    )


def _charts(report: Report) -> dict[str, Markup]:
    """Of Elo ratings by question, and of caption ratings."""
    found = {}
    for question, table in report.kept.elo.items():
        points = [Point(one.set, one.elo, one.low, one.high) for one in table.ratings]
        found[f"elo {question}"] = interval_chart(points, f"Elo, {question}", "Elo")
    if report.kept.means:
        found["captions"] = interval_chart(
            _mean_points(report), "Caption ratings", "mean rating", ends=(0, 100)
        )
    if report.kept.differences:
        points = [
            point(_joined(f"{one.set} − {one.reference}", one.category), one.difference)
            for one in report.kept.differences
        ]
        found["differences"] = interval_chart(
            points, "Differences of caption ratings", "difference of the means", line=0
        )
    return found


def _mean_points(report: Report) -> list[Point]:
    everyone = _means(report.everyone) if report.left_out else {}
    points = []
    for key, found in _means(report.kept).items():
        behind = point("", everyone[key]) if key in everyone else None
        points.append(point(_joined(*key), found, other=behind))
    return points


def _joined(name: str, category: str | None) -> str:
    return name if category is None else f"{name}, {category}"


def _means(analysis: Analysis) -> dict[tuple[str, str | None], Clustered]:
    return {(one.set, one.category): one.mean for one in analysis.means}


def _interval(found: Clustered, scale: float = 100.0) -> str:
    """Both ends, "57.0 – 68.1"; a dash where there is none."""
    if found.low is None or found.high is None:
        return "–"
    return f"{scale * found.low:.1f} to {scale * found.high:.1f}".replace("-", "−")


def _p_text(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
