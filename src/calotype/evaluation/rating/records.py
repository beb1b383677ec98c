"""The answers of a study as the statistics take them, and as files."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from calotype.evaluation.rating.judgements import (
    CaptionRating,
    ControlAnswer,
    Judgement,
    StudyResults,
)
from calotype.evaluation.rating.protocols import CAPTION_SCORES, PAIR_SCORES
from calotype.evaluation.rating.store import Store, fact
from calotype.evaluation.rating.study import Study, read_study, verify_images

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class ExportedAnswer:
    """An answer with all that is known of it; `answer` is in the order of the sets."""

    rater: str
    participant: str | None
    position: int
    trial: str
    prompt: str
    category: str | None
    question: str
    first: str
    second: str | None
    is_swapped: bool
    answer: str
    control: str | None
    passed: bool | None
    answered_at: str


def read_results(folder: Path) -> StudyResults:
    """The answers of a study, which must be as it was when the first came.

    Raises:
        UsageError: there is no study.
        CalotypeError: the study or its images were changed.
    """
    study = read_study(folder)
    verify_images(study, folder)
    store = Store(folder, study)
    judgements: list[Judgement] = []
    ratings: list[CaptionRating] = []
    controls: list[ControlAnswer] = []
    for one in answers(store):
        if one.passed is not None:
            controls.append(ControlAnswer(one.rater, one.trial, one.passed))
        if one.control is not None:
            continue
        who = (one.rater, one.trial, one.prompt, one.category)
        if one.second is None:
            ratings.append(CaptionRating(*who, one.first, CAPTION_SCORES[one.answer]))
        else:
            sets = (one.first, one.second)
            judgements.append(Judgement(*who, one.question, *sets, PAIR_SCORES[one.answer]))
    return StudyResults(
        name=study.title,
        protocol=study.protocol,
        sets=tuple(one.name for one in study.sets),
        reference=next((one.name for one in study.sets if one.is_reference), None),
        planned=study.planned,
        stopping_rule=study.stopping_rule,
        sha256=study.sha256,
        closed=store.fact("closed_at") is not None,
        conditions=_conditions(study, store.fact("closed_because")),
        judgements=tuple(judgements),
        ratings=tuple(ratings),
        controls=tuple(controls),
    )


def answers(store: Store) -> list[ExportedAnswer]:
    """All answers, in the order of raters and of what they saw."""
    with store.read() as connection:
        return list(_answers(connection, store.study))


def as_json_lines(store: Store) -> str:
    """All answers, a JSON object a line; the first line is about the study."""
    study = store.study
    with store.read() as connection:
        first = {
            "study": study.title,
            "protocol": study.protocol,
            "sha256": study.sha256,
            "frozen": fact(connection, "frozen"),
            "closed_at": fact(connection, "closed_at"),
            "closed_because": fact(connection, "closed_because"),
        }
        lines = [first, *(asdict(answer) for answer in _answers(connection, study))]
    return "".join(json.dumps(line) + "\n" for line in lines)


def as_csv(store: Store) -> str:
    """All answers as a table; text that spreadsheets would compute is quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ExportedAnswer.__annotations__))
    writer.writeheader()
    for answer in answers(store):
        writer.writerow({name: _plain(value) for name, value in asdict(answer).items()})
    return text.getvalue()


def _answers(connection: sqlite3.Connection, study: Study) -> Iterator[ExportedAnswer]:
    rows = connection.execute(
        "SELECT r.id, r.participant, s.position, a.trial, a.question, s.is_swapped, a.answer, "
        "a.passed, a.answered_at FROM answers a JOIN assignments s ON s.rater = a.rater AND "
        "s.trial = a.trial JOIN raters r ON r.id = a.rater ORDER BY r.number, s.position, a.rowid"
    )
    for rater, participant, position, name, question, swapped, answer, passed, time in rows:
        trial = study.by_id[name]
        sets = [side.set for side in trial.sides]
        yield ExportedAnswer(
            rater=rater,
            participant=participant,
            position=position,
            trial=name,
            prompt=trial.prompt,
            category=trial.category,
            question=question,
            first=sets[0],
            second=sets[1] if len(sets) > 1 else None,
            is_swapped=bool(swapped),
            answer=answer,
            control=None if trial.control is None else trial.control.kind,
            passed=None if passed is None else bool(passed),
            answered_at=time,
        )


def _conditions(study: Study, closed_because: str | None) -> dict[str, str]:
    """What was fixed before the first answer, in words."""
    conditions = {
        "condition": study.condition,
        "images a side": f"{study.images_per_side}, all of {study.side_pixels} px, as PNG",
        "raters a trial": str(study.raters),
        "seed of the order": str(study.seed),
    }
    if closed_because is not None:
        conditions["ended"] = closed_because
    return conditions


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
