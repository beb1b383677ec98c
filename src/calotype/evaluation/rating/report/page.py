"""The report's two files: `report.json` with all numbers, `report.html` that shows them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from calotype.evaluation.rating.clustered import Clustered
from calotype.evaluation.rating.judgements import CONTROL_LIMIT, StudyResults
from calotype.evaluation.rating.power import judgements_needed
from calotype.evaluation.rating.report.analysis import Report, analyse
from calotype.evaluation.rating.report.cards import other_charts, pair_cards
from calotype.evaluation.rating.report.verdicts import Verdict, percent, signed
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
        verdicts=_verdicts(report),
        cards=pair_cards(report),
        charts=other_charts(report),
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


def _verdicts(report: Report) -> list[tuple[Verdict, str]]:
    """Each with the sentence of all raters where they name another winner, or none; else ""."""
    everyone = {(one.question, one.first, one.second): one for one in report.everyone.verdicts}
    found = []
    for verdict in report.kept.verdicts:
        other = everyone[verdict.question, verdict.first, verdict.second]
        found.append((verdict, "" if other.winner == verdict.winner else other.sentence))
    return found


def _unit(study: StudyResults) -> str:
    """What the planned number is of."""
    return "of each set" if study.protocol == "caption" else "of each question and pair"


def _interval(found: Clustered, scale: float = 100.0) -> str:
    """Both ends, "57.0 – 68.1"; a dash where there is none."""
    if found.low is None or found.high is None:
        return "–"
    return f"{scale * found.low:.1f} to {scale * found.high:.1f}".replace("-", "−")


def _p_text(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
