"""One process at a time: a lock that dies with its process, however that dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from calotype.errors import UsageError


class Busy(UsageError):
    """Another process holds a lock."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a `with` block; never waits.

    Forked children do not hold it, nor what a killed process has left. Where the
    block fails and nothing else has come about in the folder, the file goes again.

    Args:
        path: of the file, in a folder that exists; it stays for the next to lock.

    Raises:
        Busy: another process holds it.
        UsageError: the folder cannot be written to.
    """
    lock = FileLock(path)
    made = not os.path.lexists(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Busy(
            f"another process works in {path.parent}; wait for it, stop it, or choose another"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write to the folder {path.parent}: {error.strerror}; choose another"
        ) from error
    foreign = set(os.listdir(path.parent))
    try:
        yield
    except BaseException:
        if made and path.parent.is_dir() and set(os.listdir(path.parent)) == foreign:
            path.unlink(missing_ok=True)
        raise
    finally:
        lock.release()
