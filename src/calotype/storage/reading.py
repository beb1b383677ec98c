"""Opening files of others: a FIFO, a device or a socket would hang the reader or never end.

What is refused is refused as `OSError`, for it is met where files are missing or unreadable, too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError

AGAIN = "get the file again"
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a symbolic link to one, for reading; never waits.

    Raises:
        OSError: as `open`, or it is no regular file; `strerror` says what it is.
        ValueError: no name of a file, as one with a NUL.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):  # opening alone would wake a device or a writer
        raise _refused(path, mode)
    # Another kind may have taken its place since: opening a FIFO waits, unless told not to.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise _refused(path, mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: Path, *, most_bytes: int | None = None) -> bytes:
    """The bytes of a regular file; as `open_regular`.

    Args:
        path: of the file.
        most_bytes: a larger one is refused before it is read; None = any size.

    Raises:
        OSError: as `open_regular`, or it is too large.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most_bytes is not None and size > most_bytes:
            reason = f"got {size:,} bytes; expected at most {most_bytes:,}"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read()


def read_object(path: Path, *, most_bytes: int | None = None) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none, whatever is the matter with it."""
    try:
        found = json.loads(read_regular(path, most_bytes=most_bytes))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_regular(path: Path) -> None:
    """Refuse what a library is about to open by its name; as `open_regular`."""
    open_regular(path).close()


def file_sha256(path: Path, *, advice: str = AGAIN) -> str:
    """The SHA-256 of a file, in hexadecimal; `advice` ends the message where it cannot be read.

    Raises:
        CalotypeError: it cannot be read; from an `OSError`.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}; {advice}") from error


def checked_bytes(
    path: Path, sha256: str, *, advice: str = AGAIN, most_bytes: int | None = None
) -> bytes:
    """The bytes of a file whose SHA-256 begins as noted down, before anybody reads them as more.

    Args:
        path: of the file.
        sha256: how the hash begins, in hexadecimal.
        advice: ends the messages.
        most_bytes: a larger file is refused unread.

    Raises:
        CalotypeError: it cannot be read, or has another hash.
    """
    try:
        data = read_regular(path, most_bytes=most_bytes)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CalotypeError(f"cannot read {path}: {reason}; {advice}") from error
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(sha256):
        raise CalotypeError(f"{path} has SHA-256 {found[:16]}…, expected {sha256[:16]}…; {advice}")
    return data


def _refused(path: Path, mode: int) -> OSError:
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
    return OSError(errno.EINVAL, f"is {kind}; expected a regular file", str(path))
