"""Writing files so that a reader never meets half of one.

Everything goes to a temporary name in the same folder, is flushed to the disk and then renamed;
when anything fails the temporary is removed and the user reads one line.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calotype.errors import CalotypeError
from calotype.storage.places import refuse_device

_ADVICE = {
    errno.ENOSPC: "make room on that disk or write elsewhere",
    errno.EDQUOT: "make room in your quota or write elsewhere",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder you may write to"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "choose another folder"),
    errno.ENAMETOOLONG: "choose a shorter name",
}
_NOTHING = "nothing was left behind"
_MODE = 0o666

_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+\.(tmp|old)", re.DOTALL)  # as `_beside` makes them
_STALE_SECONDS = 3600.0


def write_error(path: Path, error: Exception, *, state: str = _NOTHING) -> CalotypeError:
    """The one-line error for a file that could not be written; `state` says what there is now."""
    number = error.errno if isinstance(error, OSError) else None
    number = errno.ENOSPC if number is None and is_full(error) else number
    reason = os.strerror(number) if number is not None else str(error)
    advice = _ADVICE.get(-1 if number is None else number, "write elsewhere")
    return CalotypeError(f"cannot write {path}: {reason}; {advice}; {state}")


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, tells of a full disk or quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "os error 28" in str(error):  # how safetensors tells it
            return True
        error = error.__cause__
    return False


def write_file(
    path: Path,
    data: bytes,
    *,
    replace: bool = True,
    state: str = _NOTHING,
    mode: int = _MODE,
) -> None:
    """Write `data` to `path`, all or nothing.

    Args:
        path: of the file.
        data: all of it.
        replace: whether it may take the place of a file; no two processes write the same new one.
        state: what is there where it fails, for the message.
        mode: of the file, less what the user's umask takes away; 0o600 is read by its owner alone.

    Raises:
        UsageError: it is a device or a FIFO.
        CalotypeError: the disk is full, or the folder cannot be written to.
        FileExistsError: something is there and is not to be replaced.
    """
    write_with(
        path,
        lambda temporary: temporary.write_bytes(data),
        replace=replace,
        state=state,
        mode=mode,
    )


def write_with(
    path: Path,
    write: Callable[[Path], object],
    *,
    replace: bool = True,
    state: str = _NOTHING,
    mode: int = _MODE,
) -> None:
    """Let `write` make a temporary file of the name it is given, then rename that to `path`.

    Else, and in what it raises, as `write_file`.
    """
    refuse_device(path)
    temporary = _beside(path, "tmp")
    try:
        temporary.touch(mode)
        mode = temporary.stat().st_mode  # as the user's umask has it; writers may be stricter
        write(temporary)
        temporary.chmod(mode)
        _flush(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _rename_new(temporary, path)
        sync_folder(path.parent)
    except (CalotypeError, FileExistsError):
        raise
    except Exception as error:
        raise write_error(path, error, state=state) from error
    finally:  # Ctrl-C, too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, in one step."""
    temporary = _beside(path, "tmp")
    os.symlink(target, temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and its parents, unless it is there.

    Args:
        path: of the folder.
        private: if it is made, nobody else may look into it.

    Raises:
        CalotypeError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends well.

    Whatever was written into it is flushed to the disk before.

    Raises:
        CalotypeError: the folder cannot be made or renamed.
    """
    temporary = _beside(path, "tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            sync_folder(file) if file.is_dir() else _flush(file)
        sync_folder(temporary)
        _swap(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` last through a power cut, where the system can."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(number)


def remove_folder(path: Path) -> None:
    """Remove a folder; its name goes first, so that no half of it is ever met."""
    doomed = _beside(path, "old")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(
    folder: Path, is_ours: Callable[[str], object], *, stale_seconds: float = _STALE_SECONDS
) -> None:
    """Remove what killed writers left under temporary names; what cannot be removed stays.

    Args:
        folder: where files or folders were written; it may be missing.
        is_ours: told what a temporary was to become; of a name above 100 bytes the beginning.
        stale_seconds: what was touched since may be in use, and stays.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not is_temporary(entry.name, is_ours):
                continue
            with suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if stale_seconds and age <= stale_seconds:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def is_temporary(name: str, is_ours: Callable[[str], object]) -> bool:
    """Whether a file name is one of those that `remove_leftovers` would remove."""
    found = _TEMPORARY.fullmatch(name)
    return found is not None and bool(is_ours(found[1]))


def _beside(path: Path, ending: str) -> Path:
    """A hidden name in the same folder that no process has; systems count bytes, to 255."""
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    # The process alone would not do: others may write there from other machines.
    number = f"{os.getpid()}{secrets.randbelow(10**9):09d}"
    return path.with_name(f".{start}.{number}.{ending}")


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename where nothing is; raises `FileExistsError` where something is."""
    try:
        os.link(temporary, path)  # whole at once, by one process alone
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the name is taken first, then replaced
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)
    else:
        temporary.unlink()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _swap(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another, whose files are then under either temporary name."""
    if not path.exists():
        os.rename(temporary, path)
        return
    if _exchange(temporary, path):
        return
    old = _beside(path, "old")
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step, so that no kill leaves neither; False = cannot.

    Only Linux has it, on most of its file systems: renameat2(2) with RENAME_EXCHANGE.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and not rename(
        here, os.fsencode(one), here, os.fsencode(other), exchange
    )
