"""The turn of a rater: the page they are on, and the answer to it, kept once."""

from __future__ import annotations

import hmac
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from calotype.errors import CalotypeError
from calotype.evaluation.rating.design import (
    Progress,
    fails,
    is_swapped,
    least,
    next_trial,
    work_of,
)
from calotype.evaluation.rating.protocols import Question, answer_of
from calotype.evaluation.rating.store import Rater, Store, fact, freeze, now, set_fact
from calotype.evaluation.rating.study import Side, Trial

_OPEN_MINUTES = 20  # a page that long unanswered is taken for left


class Refused(CalotypeError):
    """An answer that is not taken: forged, or of a page that was never shown."""


class Closed(CalotypeError):
    """The study has ended."""


@dataclass(frozen=True)
class Turn:
    """A page: a question about a trial, as a rater sees it.

    Args:
        position: of the trial among the rater's, from 0; all that the page says of it.
        question: asked.
        sides: as they stand on the screen.
        caption: to be shown, or None.
        done: trials answered, and asked in all.
        signature: that the answer has to bring.
    """

    position: int
    question: Question
    sides: tuple[Side, ...]
    caption: str | None
    done: tuple[int, int]
    signature: str


@dataclass(frozen=True)
class Given:
    """An answer as it comes from a page."""

    position: int
    question: str
    choice: int  # from 0
    signature: str


def current_turn(store: Store, rater: Rater) -> Turn | None:
    """The page a rater is on, the same until it is answered; None = all is done."""
    with store.write() as connection:
        if fact(connection, "closed_at") is not None:
            raise Closed("the study has ended; nothing more is asked")
        return _turn(connection, store, rater)


def give(store: Store, rater: Rater, given: Given) -> bool:
    """Keep an answer; False = the question was answered before, and that answer stays.

    Raises:
        Refused: it is forged.
        Closed: it comes late.
        CalotypeError: the study was changed.
        Unavailable: it could not be kept.
    """
    with store.write() as connection:
        if fact(connection, "closed_at") is not None:
            raise Closed("the study has ended; this answer came late and is not kept")
        freeze(connection, store.study)
        row = connection.execute(
            "SELECT trial, is_swapped FROM assignments WHERE rater = ? AND position = ?",
            (rater.id, given.position),
        ).fetchone()
        trial_id, swapped = (row[0], bool(row[1])) if row is not None else ("", False)
        expected = _signature(store, rater, trial_id, given.question)
        is_ours = hmac.compare_digest(expected.encode(), given.signature.encode("utf-8", "replace"))
        question = _question(store, given.question)
        if not is_ours or question is None or not 0 <= given.choice < len(question.choices):
            raise Refused("got an answer that belongs to no page of yours; open the study again")
        trial = store.study.by_id[trial_id]
        answer = answer_of(question, given.choice, is_swapped=swapped)
        passed = None
        if trial.control is not None and trial.control.question == question.name:
            passed = int(answer in trial.control.right)
        is_new = connection.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
            (rater.id, trial.id, question.name, answer, passed, now()),
        ).rowcount
        if is_new:
            _close_if_complete(connection, store, trial)
        return bool(is_new)


def _turn(connection: sqlite3.Connection, store: Store, rater: Rater) -> Turn | None:
    study, pool = store.study, _pool(connection, store, rater)
    rows = connection.execute(
        "SELECT a.trial, a.position, a.is_swapped, COUNT(b.question) FROM assignments a "
        "LEFT JOIN answers b ON b.rater = a.rater AND b.trial = a.trial WHERE a.rater = ? "
        "GROUP BY a.trial ORDER BY a.position",
        (rater.id,),
    ).fetchall()
    questions, total = study.rules.questions, sum(work_of(study, pool))
    if not rows or rows[-1][3] >= len(questions):
        row = _assign(connection, store, rater, [row[:3] for row in rows])
        if row is None:
            return None
        rows.append(row)
    name, position, swapped, answered = rows[-1]
    trial, question = study.by_id[name], questions[answered]
    return Turn(
        position=position,
        question=question,
        sides=trial.sides[::-1] if swapped else trial.sides,
        caption=trial.caption if question.shows_caption else None,
        done=(position, max(total, position + 1)),
        signature=_signature(store, rater, trial.id, question.name),
    )


def _assign(
    connection: sqlite3.Connection, store: Store, rater: Rater, rows: list[tuple[str, int, int]]
) -> tuple[str, int, int, int] | None:
    """Give a rater the next trial; None = there is none."""
    study = store.study
    swapped: dict[str, list[int]] = {}
    for trial_id, side, count in connection.execute(
        "SELECT trial, is_swapped, COUNT(*) FROM assignments GROUP BY trial, is_swapped"
    ):
        swapped.setdefault(trial_id, [0, 0])[side] = count
    own = sum(row[2] for row in rows)
    progress = Progress(
        answered=_answered(connection, store, with_open=True),
        seen=[row[0] for row in rows],
        swapped={name: (pair[0], pair[1]) for name, pair in swapped.items()},
        own=(len(rows) - own, own),
    )
    trial = next_trial(study, rater.number, _pool(connection, store, rater), progress)
    if trial is None:
        return None
    side = study.rules.is_pair and is_swapped(study, rater.number, trial, progress)
    position = len(rows)
    connection.execute(
        "INSERT INTO assignments VALUES (?, ?, ?, ?, ?)",
        (rater.id, position, trial.id, int(side), now()),
    )
    return trial.id, position, int(side), 0


def _pool(connection: sqlite3.Connection, store: Store, rater: Rater) -> str:
    """The pool a rater began with; the one with the fewest raters that still wants any."""
    row = connection.execute("SELECT pool FROM raters WHERE id = ?", (rater.id,)).fetchone()
    if row is None:
        raise Refused("got a rater who was deleted; nothing more is asked")
    if row[0] is not None:
        return str(row[0])
    study, counts = store.study, _answered(connection, store, with_open=False)
    pools = dict.fromkeys(trial.pool for trial in study.real)
    wanting = {trial.pool for trial in study.real if counts.get(trial.id, 0) < study.raters}
    taken = dict(
        connection.execute("SELECT pool, COUNT(*) FROM raters WHERE pool NOT NULL GROUP BY pool")
    )
    open_pools = [pool for pool in pools if pool in wanting] or list(pools)
    pool = least(open_pools, taken, study.seed, rater.number)
    connection.execute("UPDATE raters SET pool = ? WHERE id = ?", (pool, rater.id))
    return pool


def _standing(connection: sqlite3.Connection) -> dict[str, bool]:
    """By rater, whether they pass their control trials so far; who has met none is not in it."""
    rows = connection.execute(
        "SELECT rater, SUM(passed), COUNT(passed) FROM answers WHERE passed NOT NULL GROUP BY rater"
    )
    return {rater: not fails(passed, asked) for rater, passed, asked in rows}


def _answered(connection: sqlite3.Connection, store: Store, *, with_open: bool) -> dict[str, int]:
    """By trial, how many raters in good standing answered it all.

    `with_open` also counts who has it before them, and who has met no control trial yet.
    """
    standing = _standing(connection)
    found: dict[str, int] = {}
    last = store.study.rules.questions[-1].name
    rows = connection.execute("SELECT trial, rater FROM answers WHERE question = ?", (last,))
    done = rows.fetchall()
    if with_open:
        since = (datetime.now(UTC) - timedelta(minutes=_OPEN_MINUTES)).isoformat("T", "seconds")
        done += connection.execute(
            "SELECT trial, rater FROM assignments a WHERE assigned_at > ? AND NOT EXISTS (SELECT 1 "
            "FROM answers b WHERE b.rater = a.rater AND b.trial = a.trial AND b.question = ?)",
            (since, last),
        ).fetchall()
    unknown = with_open or len(store.study.real) == len(store.study.trials)
    for trial, rater in done:
        if standing.get(rater, unknown):
            found[trial] = found.get(trial, 0) + 1
    return found


def _close_if_complete(connection: sqlite3.Connection, store: Store, trial: Trial) -> None:
    """End the study where this answer was the last that it needs."""
    study = store.study
    (count,) = connection.execute(
        "SELECT COUNT(*) FROM answers WHERE trial = ? AND question = ?",
        (trial.id, study.rules.questions[-1].name),
    ).fetchone()
    if count < study.raters and trial.control is None:
        return  # the whole count would be long
    counts = _answered(connection, store, with_open=False)
    if all(counts.get(trial.id, 0) >= study.raters for trial in study.real):
        set_fact(connection, "closed_at", now())
        set_fact(connection, "closed_because", "complete")


def _question(store: Store, name: str) -> Question | None:
    return next((one for one in store.study.rules.questions if one.name == name), None)


def _signature(store: Store, rater: Rater, trial: str, question: str) -> str:
    message = f"answer:{rater.id}:{trial}:{question}".encode("utf-8", "replace")
    return hmac.new(store.key, message, "sha256").hexdigest()
