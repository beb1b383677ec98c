"""Keys: random, shown once, kept as hashes in a file of the data folder that only its owner reads.

Sessions are what the page's cookies name; they are kept likewise, and end with their key.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import compare_digest
from typing import Any

from calotype.errors import CalotypeError, UsageError
from calotype.serving.front.limits import MOST_SESSIONS, SESSION_SECONDS
from calotype.storage.files import make_folder, write_file
from calotype.storage.lock import locked
from calotype.storage.reading import read_object, read_regular
from calotype.web.tokens import token_hash

FILE = "keys.json"
SESSIONS_FILE = "sessions.json"
_LOCK = "keys.lock"
_PRIVATE = 0o600
_MOST_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def new_key(folder: Path, name: str) -> str:
    """Make a key; it is told this once, and kept as a hash.

    Raises:
        UsageError: the name is taken, or no name.
        CalotypeError: the file of keys cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"got a key's name {name!r}; expected up to 64 letters, digits and ._@-, such as laptop"
        )
    make_folder(folder, private=True)
    with locked(folder / _LOCK):
        known = _read(folder / FILE)
        if name in known:
            raise UsageError(
                f"got --new-key {name}, which exists; choose another, or --delete-key {name} first"
            )
        key = f"ct-{secrets.token_urlsafe(24)}"  # 192 bits
        _write(folder / FILE, {**known, name: token_hash(key)})
    return key


def delete_key(folder: Path, name: str) -> None:
    """Forget a key: from now on it is wrong, on a running server, too.

    Raises:
        UsageError: there is none of that name.
        CalotypeError: the file of keys cannot be read or written.
    """
    make_folder(folder, private=True)
    with locked(folder / _LOCK):
        known = dict(_read(folder / FILE))
        if known.pop(name, None) is None:
            names = ", ".join(known) or "none"
            raise UsageError(f"got --delete-key {name!r}; expected one of the keys: {names}")
        _write(folder / FILE, known)


def list_keys(folder: Path) -> list[str]:
    """The names of all keys, in the order they were made."""
    return list(_read(folder / FILE))


class Keys:
    """The keys of a data folder, as they are now: the file is read again when it has changed.

    Args:
        folder: of the data; None = there are no keys.

    Raises:
        CalotypeError: the file of keys is damaged.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._stamp = self._stamp_now()
        self._hashes = {} if self._path is None else _read(self._path)
        self._needed = bool(self._hashes)

    @property
    def needed(self) -> bool:
        """Whether a key is needed: once one was, until the server ends."""
        self._refresh()
        return self._needed

    def name_of(self, key: str) -> str | None:
        """Whose key it is; it takes as long whichever it is."""
        return self.name_of_hash(token_hash(key))

    def name_of_hash(self, digest: str) -> str | None:
        """Whose key has this hash."""
        self._refresh()
        found = None
        for name, known in self._hashes.items():
            if compare_digest(known, digest):
                found = name
        return found

    def hash_of(self, name: str) -> str | None:
        """The hash of a key, by its name."""
        return self._hashes.get(name)

    def _refresh(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp or self._path is None:
            return
        self._stamp = stamp
        with suppress(CalotypeError):  # damaged while we run: those known before go on
            self._hashes = _read(self._path)
            self._needed = self._needed or bool(self._hashes)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = None if self._path is None else self._path.stat()
        except OSError:
            found = None
        if found is None:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class _Session:
    key_hash: str
    until: float


class Sessions:
    """Who is logged in to the page: random ids, kept as hashes, for thirty days.

    Args:
        folder: where they are kept; None, or a full disk = until the server ends.
        keys: that they stand for.
    """

    def __init__(self, folder: Path | None, keys: Keys) -> None:
        self._path = None if folder is None else folder / SESSIONS_FILE
        self._keys = keys
        self._sessions: dict[str, _Session] = {}
        self._changing = threading.Lock()  # logins are written to the disk in threads
        kept = {} if self._path is None else read_object(self._path, most_bytes=_MOST_BYTES)
        for digest, one in kept.items():
            with suppress(TypeError, ValueError, KeyError):
                self._sessions[digest] = _Session(str(one["key"]), float(one["until"]))

    def begin(self, name: str) -> str:
        """A new session for the holder of a key: what its cookie is to hold."""
        session = secrets.token_urlsafe(24)
        now = time.time()
        with self._changing:
            alive = {digest: one for digest, one in self._sessions.items() if one.until > now}
            # A key that was deleted just now has no hash, and its session no holder.
            key_hash = self._keys.hash_of(name) or ""
            alive[token_hash(session)] = _Session(key_hash, now + SESSION_SECONDS)
            self._sessions = dict(list(alive.items())[-MOST_SESSIONS:])
            self._keep()
        return session

    def name_of(self, session: str) -> str | None:
        """Whose session it is, None where it is nobody's, over, or its key is gone."""
        found = self._sessions.get(token_hash(session))  # by hash: no time of a comparison tells it
        if found is None or not found.until > time.time():  # NaN is over
            return None
        return self._keys.name_of_hash(found.key_hash)

    def end(self, session: str) -> None:
        """Log out."""
        digest = token_hash(session)
        with self._changing:
            if digest in self._sessions:
                self._sessions = {d: one for d, one in self._sessions.items() if d != digest}
                self._keep()

    def _keep(self) -> None:
        if self._path is None:
            return
        kept = {d: {"key": one.key_hash, "until": one.until} for d, one in self._sessions.items()}
        with suppress(CalotypeError):
            _write(self._path, kept)


def _read(path: Path) -> Mapping[str, str]:
    """Names and hashes; none where there is no file. A damaged one must not open the server."""
    try:
        found: Any = json.loads(read_regular(path, most_bytes=_MOST_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise CalotypeError(
            f"cannot read {path}: {reason}; mend it, or remove it and make new keys"
        ) from error
    if not isinstance(found, dict) or not all(_is_hash(one) for one in found.values()):
        raise CalotypeError(
            f"cannot read {path}: it holds no names and hashes; remove it and make new keys"
        )
    return found


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _write(path: Path, content: Mapping[str, object]) -> None:
    write_file(path, json.dumps(content, indent=1).encode() + b"\n", mode=_PRIVATE)
