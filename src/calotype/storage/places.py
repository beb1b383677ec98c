"""Places to write to: whether one may be, asked before anything is computed, and the cache."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from calotype.errors import CalotypeError, UsageError


def check_output(path: Path) -> None:
    """Refuse an output file that cannot be made, before anything is computed.

    Raises:
        UsageError: the folder is missing, or the path is a folder or a device.
        CalotypeError: the folder cannot be written to.
    """
    folder = path.parent
    try:
        found, taken = folder.is_dir(), path.is_dir()
    except (OSError, ValueError) as error:
        raise UsageError(f"got output {str(path)!r}: {error}; choose another name") from error
    if not found:
        raise UsageError(f"the folder {folder} of the output {path.name} is missing; make it first")
    if taken:
        raise UsageError(f"got the folder {path} as output file; expected a file name in it")
    refuse_device(path)
    if not os.access(folder, os.W_OK):
        raise CalotypeError(f"the folder {folder} cannot be written to; choose another")


def check_holds_only(folder: Path, own: Collection[str], *, what: str, marker: str) -> None:
    """Refuse a folder to be replaced unless it is new, empty, or ours and nothing else.

    Args:
        folder: whose contents would be lost.
        own: names in it that are ours, with "/" between folders.
        what: it is if it is ours, for messages.
        marker: the one of `own` without which it is not ours.

    Raises:
        UsageError: it holds anything else.
        CalotypeError: it cannot be read.
    """
    way_out = "move that away, or choose another folder"
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UsageError(f"got {folder}, which is no folder; expected one: {way_out}")
        if not any(folder.iterdir()):
            return
        if not (folder / marker).exists():  # before a whole disk is looked through
            raise UsageError(
                f"{folder} exists and is no {what}; expected a new or empty folder or a {what}: "
                f"{way_out}"
            )
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        other = next((name for name in names if name not in own), None)
    except OSError as error:
        raise CalotypeError(f"cannot read {folder}: {error.strerror}; {way_out}") from error
    if other is not None:
        raise UsageError(
            f"got {folder}, which holds {other!r} beside its {what}; expected what is its own: "
            f"{way_out}"
        )


def refuse_device(path: Path) -> None:
    """Renaming a file over /dev/null would take it from everybody; root could.

    Raises:
        UsageError: something is there that is neither a file nor a folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"got output {path}, which is a device or a FIFO; expected a file name")


def cache_folder() -> Path | None:
    """Calotype's folder in the user's cache; None where the user has no home at all."""
    return _users("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path | None:
    """Calotype's folder among what programs keep for the user; None as for `cache_folder`."""
    return _users("XDG_DATA_HOME", ".local/share")


def _users(variable: str, place: str) -> Path | None:
    root = os.environ.get(variable)
    if root:
        return Path(root) / "calotype"
    try:
        return Path.home() / place / "calotype"
    except RuntimeError:  # no HOME, and a user number that nobody has a name for: a container
        return None
