"""All that a report says, as records: with and without the raters who failed the controls."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.evaluation.rating.agreement import (
    Agreement,
    caption_agreement,
    judgement_agreement,
)
from calotype.evaluation.rating.captions import (
    CaptionDifference,
    CaptionMean,
    caption_differences,
    caption_means,
)
from calotype.evaluation.rating.elo import EloTable, elo_table
from calotype.evaluation.rating.judgements import (
    CaptionRating,
    ControlRecord,
    Judgement,
    StudyResults,
    control_records,
    in_order,
)
from calotype.evaluation.rating.power import judgements_needed
from calotype.evaluation.rating.preferences import Preference, preferences
from calotype.evaluation.rating.report.verdicts import Verdict, caption_verdicts, pair_verdicts

_RATES = (0.6, 0.55)


@dataclass(frozen=True)
class Analysis:
    """The statistics of some raters' answers; `elo` by question, where it says more than a rate."""

    raters: int
    prompts: int
    answers: int
    preferences: list[Preference]
    elo: dict[str, EloTable]
    means: list[CaptionMean]
    differences: list[CaptionDifference]
    agreement: list[Agreement]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Need:
    """Judgements that a preference of this rate needs, by the clustering that was found."""

    question: str
    first: str
    second: str
    clustering: float
    rate: float
    independent: int
    clustered: int


@dataclass(frozen=True)
class Report:
    """What `report.json` holds and the page shows; `kept` is without `left_out`."""

    study: StudyResults
    kept: Analysis
    everyone: Analysis
    controls: list[ControlRecord]
    left_out: list[str]
    needed: list[Need]


def analyse(study: StudyResults) -> Report:
    """All statistics of a study."""
    controls = control_records(study.controls)
    left_out = [record.rater for record in controls if record.left_out]
    everyone = _analysis(study)
    kept = _analysis(study.without(frozenset(left_out))) if left_out else everyone
    return Report(study, kept, everyone, controls, left_out, _needed(kept.preferences))


def _analysis(study: StudyResults) -> Analysis:
    judgements = in_order(study.judgements, study.sets)
    place = {name: number for number, name in enumerate(study.sets)}
    judgements.sort(key=lambda one: (place[one.first], place[one.second]))
    ratings = study.ratings
    rows = preferences(judgements)
    tables = {}
    if study.protocol == "elo" or len(study.sets) > 2:
        for question in dict.fromkeys(one.question for one in judgements):
            table = elo_table([one for one in judgements if one.question == question])
            if table is not None:
                tables[question] = table
    reference = study.reference
    differences = [] if reference is None else caption_differences(ratings, study.sets, reference)
    agreement = judgement_agreement(judgements) + ([caption_agreement(ratings)] if ratings else [])
    answers: list[Judgement | CaptionRating] = [*judgements, *ratings]
    return Analysis(
        raters=len({one.rater for one in answers}),
        prompts=len({one.prompt for one in answers}),
        answers=len(answers),
        preferences=rows,
        elo=tables,
        means=caption_means(ratings, study.sets),
        differences=differences,
        agreement=agreement,
        verdicts=pair_verdicts(rows, study.planned)
        + caption_verdicts(differences, ratings, study.planned),
    )


def _needed(rows: list[Preference]) -> list[Need]:
    """For each question and pair whose clustering is known."""
    found = []
    for row in rows:
        effect = row.rate.design_effect
        if row.category is not None or effect is None:
            continue
        for rate in _RATES:
            alone = judgements_needed(rate)
            clustered = judgements_needed(rate, clustering=max(1.0, effect))
            need = Need(row.question, row.first, row.second, effect, rate, alone, clustered)
            found.append(need)
    return found
