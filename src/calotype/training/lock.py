"""One trainer for one run folder: a lock that dies with its process, however that dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calotype.errors import UsageError

LOCK_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (which exists) for the length of a `with` block.

    The lock is flock's, on a descriptor that is closed on exec and shared with nobody; processes
    that are forked without exec give it up at once (a killed trainer's orphans must not hold it).

    Raises:
        UsageError: another trainer holds it, or the folder cannot be written to.
    """
    made = not os.path.lexists(folder / LOCK_NAME)
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(
            f"cannot write to the run folder {folder}: {error.strerror}; choose another --out"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{folder} is being trained by another process; wait for it, stop it, or choose "
                "another --out"
            ) from None
        if not _is_there(descriptor, folder / LOCK_NAME):
            raise UsageError(f"{folder} was given up by another process just now; try again")
        _close_in_children(descriptor)
        foreign = {path.name for path in folder.iterdir()}
        try:
            yield
        except BaseException:
            if made and folder.is_dir() and {path.name for path in folder.iterdir()} == foreign:
                (folder / LOCK_NAME).unlink(missing_ok=True)  # nothing of ours has come about
            raise
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_held: set[int] = set()


def _close_in_children(descriptor: int) -> None:
    if not _held:
        _register()
    _held.add(descriptor)


def _register() -> None:
    global _registered
    if not _registered:
        os.register_at_fork(after_in_child=_forget)
        _registered = True


_registered = False


def _forget() -> None:
    # A forked child shares the open file and with it the lock: closing its copy leaves the
    # trainer's lock alone, but it can no longer outlive the trainer.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
