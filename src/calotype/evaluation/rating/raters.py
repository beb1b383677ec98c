"""Raters: how they come in, are known again, and leave with all they said."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from dataclasses import dataclass

from calotype.errors import UsageError
from calotype.evaluation.rating.store import Rater, Store, fact, now, set_fact
from calotype.web.tokens import new_token as random_token
from calotype.web.tokens import token_hash

_MOST_PARTICIPANT = 128
_COLUMNS = "number, id, participant, pool, consented_at IS NOT NULL"


@dataclass(frozen=True)
class Link:
    """A rater's way in; the token is shown this once, and kept as a hash."""

    rater: str
    token: str


def invite(store: Store, count: int) -> list[Link]:
    """Make raters, each with a token of their own."""
    if not 1 <= count <= 10_000:
        raise UsageError(f"got {count} raters to invite; expected 1 to 10,000")
    with store.write() as connection:
        return [_make(connection, None) for _ in range(count)]


def join(store: Store, participant: str | None) -> Link | None:
    """A new rater who was not invited; None = this participant has come before."""
    participant = checked_participant(participant)
    with store.write() as connection:
        if participant is not None and _taken(connection, participant, but=""):
            return None
        return _make(connection, participant)


def rater_of(store: Store, token: str) -> Rater | None:
    """Who has a token. It is looked up by its hash, so that no time of a comparison tells it."""
    with store.read() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM raters WHERE token_hash = ?", (token_hash(token),)
        ).fetchone()
    return None if row is None else Rater(row[0], row[1], row[2], row[3], bool(row[4]))


def consent(store: Store, rater: Rater, participant: str | None = None) -> None:
    """Keep that a rater agreed, and the participant id they came with, once and for all."""
    participant = checked_participant(participant)
    with store.write() as connection:
        if participant is not None and _taken(connection, participant, but=rater.id):
            raise UsageError(
                "got a participant id that has come before; go on where you began, or leave it out"
            )
        connection.execute(
            "UPDATE raters SET consented_at = COALESCE(consented_at, ?), "
            "participant = COALESCE(participant, ?) WHERE id = ?",
            (now(), participant, rater.id),
        )


def remove(store: Store, rater: str) -> bool:
    """Delete a rater with everything they said; whether there was one."""
    with store.write() as connection:
        return connection.execute("DELETE FROM raters WHERE id = ?", (rater,)).rowcount > 0


def renew(store: Store, rater: str) -> Link | None:
    """A new link for a rater who lost theirs, which no longer works; None = there is no such."""
    token = random_token()
    with store.write() as connection:
        changed = connection.execute(
            "UPDATE raters SET token_hash = ? WHERE id = ?", (token_hash(token), rater)
        )
        return Link(rater, token) if changed.rowcount else None


def completion_code(store: Store, rater: str) -> str:
    """What a rater who is done hands in elsewhere; the administrator sees it, too."""
    digest = hmac.new(store.key, f"done:{rater}".encode(), "sha256").hexdigest()
    return digest[:10].upper()


def new_token(store: Store, role: str) -> str:
    """A new token of the administrator or of the common link; the one before no longer works."""
    token = random_token()
    with store.write() as connection:
        set_fact(connection, f"{role}_hash", token_hash(token))
    return token


def is_token(store: Store, role: str, token: str) -> bool:
    """Whether a token is that of the administrator, or of the common link."""
    expected = store.fact(f"{role}_hash") or ""
    return hmac.compare_digest(expected, token_hash(token))


def close(store: Store, reason: str) -> None:
    """End the study: later answers are refused."""
    with store.write() as connection:
        if fact(connection, "closed_at") is None:
            set_fact(connection, "closed_at", now())
            set_fact(connection, "closed_because", reason)


def checked_participant(text: str | None) -> str | None:
    """An outside participant id, None where it is empty.

    Raises:
        UsageError: it is too long, or holds what cannot be seen.
    """
    text = (text or "").strip()
    if len(text) > _MOST_PARTICIPANT or not text.isprintable():
        raise UsageError(
            f"got a participant id of {len(text)} characters; expected at most "
            f"{_MOST_PARTICIPANT}, all of them visible"
        )
    return text or None


def _make(connection: sqlite3.Connection, participant: str | None) -> Link:
    link = Link(f"r{secrets.token_hex(5)}", random_token())
    connection.execute(
        "INSERT INTO raters (id, token_hash, participant) VALUES (?, ?, ?)",
        (link.rater, token_hash(link.token), participant),
    )
    return link


def _taken(connection: sqlite3.Connection, participant: str, *, but: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM raters WHERE participant = ? AND id != ?", (participant, but)
    ).fetchone()
    return row is not None
