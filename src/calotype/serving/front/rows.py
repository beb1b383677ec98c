"""The database of the store: jobs that are not over, and images that are kept.

Times are seconds since 1970. An image that is deleted is hidden first, so that it can come back.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError

_VERSION = 1
_MOST_WORDS = 32  # of a search
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, created REAL NOT NULL, ended REAL, key_name TEXT, facts TEXT NOT NULL
) STRICT;
CREATE TABLE images (
    id TEXT PRIMARY KEY, job TEXT, place INTEGER NOT NULL, key_name TEXT, state TEXT NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0, error TEXT,
    created REAL NOT NULL, prompt TEXT NOT NULL, seed INTEGER NOT NULL, model TEXT, kind TEXT,
    format TEXT NOT NULL, width INTEGER NOT NULL DEFAULT 0, height INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER, recipe TEXT, favourite INTEGER NOT NULL DEFAULT 0, deleted REAL
) STRICT;
CREATE INDEX images_by_age ON images (created, id) WHERE bytes IS NOT NULL;
CREATE INDEX images_by_job ON images (job);
"""


@dataclass(frozen=True, kw_only=True)
class KeptImage:
    """An image on the disk.

    Attributes:
        id: of its file.
        job: it was made by; None = it was found without one.
        created: when it was finished.
        prompt: its caption.
        seed: its own.
        model: by name.
        kind: of the job.
        format: of the file.
        width: in pixels.
        height: in pixels.
        bytes: of the file.
        recipe: how it was made; None = not known.
        favourite: it is never removed to make room.
    """

    id: str
    job: str | None
    created: float
    prompt: str
    seed: int
    model: str | None
    kind: str | None
    format: str
    width: int
    height: int
    bytes: int
    recipe: dict[str, Any] | None
    favourite: bool


_KEPT = (
    "id, job, created, prompt, seed, model, kind, format, width, height, bytes, recipe, favourite"
)


class Rows:
    """A connection; used by one thread at a time.

    Args:
        path: of the database, made where it is missing.

    Raises:
        CalotypeError: it cannot be opened, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                found = self._begin()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise CalotypeError(
                f"cannot use {path}: {error}; make room if the disk is full, move it away to begin "
                "anew, or choose another --data"
            ) from error
        if found > _VERSION:
            self._db.close()
            raise CalotypeError(f"{path} is of a later calotype; use that, or another --data")

    def _begin(self) -> int:
        """Make the tables where there are none; the version of those that are there."""
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
        return found

    def close(self) -> None:
        """Write all back into one file."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: on the disk when the block ends well, else undone."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def add_job(self, job: dict[str, Any], images: list[dict[str, Any]]) -> None:
        """A job that is not over, and its images."""
        with self.writing() as db:
            _insert(db, "jobs", job)
            for image in images:
                _insert(db, "images", image)

    def change_image(self, image_id: str, **values: Any) -> None:
        """Set columns of an image."""
        with self.writing() as db:
            _update(db, "images", image_id, values)

    def put_image(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        """Set columns of an image; its whole row where it is missing."""
        with self.writing() as db:
            if not _update(db, "images", row["id"], values):
                _insert(db, "images", {**row, **values})

    def end_job(self, job_id: str, ended: float, images: dict[str, dict[str, Any]]) -> None:
        """A job is over; columns to be set by image."""
        with self.writing() as db:
            _update(db, "jobs", job_id, {"ended": ended})
            for image_id, values in images.items():
                _update(db, "images", image_id, values)

    def forget_jobs(self, ended_before: float) -> None:
        """Jobs that were over long ago, and their images that have no file."""
        with self.writing() as db:
            old = "SELECT id FROM jobs WHERE ended < ?"
            db.execute(
                f"DELETE FROM images WHERE bytes IS NULL AND job IN ({old})", (ended_before,)
            )
            db.execute("DELETE FROM jobs WHERE ended < ?", (ended_before,))

    def jobs(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """All jobs, oldest first, with their images."""
        found = []
        for job in self._db.execute("SELECT * FROM jobs ORDER BY created, id").fetchall():
            images = self._db.execute(
                "SELECT * FROM images WHERE job = ? ORDER BY place", (job["id"],)
            ).fetchall()
            found.append((dict(job), [dict(image) for image in images]))
        return found

    def image(self, image_id: str) -> dict[str, Any] | None:
        """All columns of an image, whoever's and wherever it is."""
        row = self._db.execute("SELECT * FROM images WHERE id = ?", (image_id,)).fetchone()
        return None if row is None else dict(row)

    def add_image(self, image: dict[str, Any]) -> None:
        """An image that was found without a row."""
        with self.writing() as db:
            _insert(db, "images", image)

    def find(self, image_id: str, key_name: str | None) -> KeptImage | None:
        """An image of a key's that is kept and not hidden."""
        row = self._db.execute(
            f"SELECT {_KEPT} FROM images WHERE id = ? AND key_name IS ? AND bytes IS NOT NULL "
            "AND deleted IS NULL",
            (image_id, key_name),
        ).fetchone()
        return None if row is None else _kept(row)

    def listed(
        self,
        key_name: str | None,
        before: tuple[float, str] | None,
        limit: int,
        *,
        search: str,
        favourite: bool,
    ) -> list[KeptImage]:
        """Images of a key's, newest first, older than (created, id), whose captions hold words."""
        created, image_id = before if before is not None else (1e300, "")
        words = search.split()[:_MOST_WORDS]
        rows = self._db.execute(
            f"SELECT {_KEPT} FROM images WHERE key_name IS ? AND bytes IS NOT NULL "
            "AND deleted IS NULL AND (created, id) < (?, ?) AND favourite >= ? "
            + "AND prompt LIKE ? ESCAPE '\\' " * len(words)
            + "ORDER BY created DESC, id DESC LIMIT ?",
            (key_name, created, image_id, int(favourite), *map(_pattern, words), limit),
        )
        return [_kept(row) for row in rows.fetchall()]

    def hidden(self, before: float) -> list[tuple[str, str]]:
        """Ids and formats of images that were hidden before a time."""
        rows = self._db.execute("SELECT id, format FROM images WHERE deleted < ?", (before,))
        return [(row["id"], row["format"]) for row in rows.fetchall()]

    def oldest_beyond(self, most_bytes: int) -> list[tuple[str, str]]:
        """Ids and formats of the oldest that are no favourites, without which so much is left."""
        total = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM images").fetchone()[0]
        found: list[tuple[str, str]] = []
        rows = self._db.execute(
            "SELECT id, format, bytes FROM images WHERE bytes IS NOT NULL AND favourite = 0 "
            "ORDER BY created, id"
        )
        while total > most_bytes and (row := rows.fetchone()) is not None:
            found.append((row["id"], row["format"]))
            total -= row["bytes"]
        rows.close()
        return found

    def remove(self, *image_ids: str) -> None:
        """Images whose files are gone."""
        if image_ids:
            with self.writing() as db:
                db.executemany("DELETE FROM images WHERE id = ?", ((one,) for one in image_ids))

    def files(self) -> dict[str, str]:
        """Formats of all images that ought to have a file, by id."""
        rows = self._db.execute("SELECT id, format FROM images WHERE bytes IS NOT NULL")
        return {row["id"]: row["format"] for row in rows.fetchall()}


def _pattern(word: str) -> str:
    """What LIKE finds a word by, wherever it stands."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"


def _insert(db: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    names = ", ".join(values)
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _update(db: sqlite3.Connection, table: str, row_id: str, values: dict[str, Any]) -> bool:
    """Whether there is such a row."""
    names = ", ".join(f"{name} = ?" for name in values)
    done = db.execute(f"UPDATE {table} SET {names} WHERE id = ?", (*values.values(), row_id))
    return done.rowcount > 0


def _kept(row: sqlite3.Row) -> KeptImage:
    found = dict(row)
    recipe = found.pop("recipe")
    favourite = bool(found.pop("favourite"))
    return KeptImage(
        **found, recipe=None if recipe is None else json.loads(recipe), favourite=favourite
    )
