"""The answers of a study, in SQLite: what was acknowledged survives a kill, and counts once.

Every change is one transaction of a write-ahead log that is on the disk before it is acknowledged
(synchronous FULL). Nothing of a rater is kept but a random id, the hash of their token, the
participant id they came with, and their answers with the time.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calotype.errors import CalotypeError
from calotype.evaluation.rating.study import Study
from calotype.storage.files import write_error

FILE = "answers.sqlite"
_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    token_hash TEXT NOT NULL UNIQUE,
    participant TEXT UNIQUE,
    pool TEXT,
    consented_at TEXT
);
CREATE TABLE IF NOT EXISTS assignments (
    rater TEXT NOT NULL REFERENCES raters (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    trial TEXT NOT NULL,
    is_swapped INTEGER NOT NULL,
    assigned_at TEXT NOT NULL,
    PRIMARY KEY (rater, trial),
    UNIQUE (rater, position)
);
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT NOT NULL,
    trial TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    passed INTEGER,
    answered_at TEXT NOT NULL,
    PRIMARY KEY (rater, trial, question),
    FOREIGN KEY (rater, trial) REFERENCES assignments (rater, trial) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS by_trial ON assignments (trial);
"""


class Unavailable(CalotypeError):
    """The answers cannot be read or written just now: locked by another program, or a full disk."""


@dataclass(frozen=True)
class Rater:
    """Who answers."""

    number: int
    id: str
    participant: str | None
    pool: str | None
    has_consented: bool


class Store:
    """The database of a study.

    Args:
        folder: of the study.
        study: whose answers it keeps.
        busy_seconds: to wait for other writers.

    Raises:
        CalotypeError: its answers belong to another study, or it cannot be opened.
    """

    def __init__(self, folder: Path, study: Study, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self.path = folder / FILE
        self.study = study
        self._busy_seconds = busy_seconds
        if self.path.exists() and not self.path.is_file():  # SQLite would write to a device
            raise CalotypeError(
                f"{self.path} is no regular file; move it away, or put the study's answers back"
            )
        try:
            self.path.touch(mode=0o600)  # it holds what signs the pages
        except OSError as error:
            raise write_error(self.path, error) from error
        with self._errors(), closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        with self.write() as connection:
            _begin(connection, study)
        self.key = bytes.fromhex(self.fact("key") or "")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on the disk when the block ends; an error in the block undoes it."""
        with self._errors(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("COMMIT")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A view of the database that no writer changes."""
        with self._errors(), closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection

    def fact(self, name: str) -> str | None:
        """A fact about the study."""
        with self.read() as connection:
            return fact(connection, name)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, cached_statements=0
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            advice = "it is damaged: put a copy of it back"
            if isinstance(error, sqlite3.OperationalError):
                advice = "make room, or end what locks it; no answer was half written"
            raise Unavailable(f"cannot use {self.path}: {error}; {advice}") from error


def fact(connection: sqlite3.Connection, name: str) -> str | None:
    """A fact about the study."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Write a fact about the study."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def freeze(connection: sqlite3.Connection, study: Study) -> None:
    """Freeze the study with its first answer.

    Raises:
        CalotypeError: it is frozen, and was changed since.
    """
    frozen = fact(connection, "frozen")
    if frozen is None:
        set_fact(connection, "frozen", study.sha256)
    elif frozen != study.sha256:
        raise CalotypeError(
            f"the study was changed after its first answer: got the hash {study.sha256:.12}, "
            f"expected {frozen:.12}; put study.json back, or make a new study"
        )


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _begin(connection: sqlite3.Connection, study: Study) -> None:
    """Make the server's key; trials that were only shown may have been of another plan."""
    if fact(connection, "key") is None:
        set_fact(connection, "key", secrets.token_hex(32))
    if fact(connection, "frozen") is not None:
        freeze(connection, study)
    elif fact(connection, "opened") != study.sha256:
        connection.execute("DELETE FROM assignments")
        connection.execute("UPDATE raters SET pool = NULL")
        set_fact(connection, "opened", study.sha256)
