"""Writing files so that a reader never meets half of one.

Everything goes to a temporary name in the same folder, is flushed to the disk and then renamed;
when anything fails the temporary is removed and the user reads one line.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from calotype.errors import CalotypeError, UsageError

_ADVICE = {
    errno.ENOSPC: "make room on that disk or write elsewhere",
    errno.EDQUOT: "make room in your quota or write elsewhere",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
}

_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+\.tmp", re.DOTALL)  # as `_beside` makes them


def write_error(path: Path, error: Exception) -> CalotypeError:
    """The one-line error for a file that could not be written."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and "os error 28" in str(error):  # how safetensors tells of a full disk
        number = errno.ENOSPC
    reason = os.strerror(number) if number is not None else str(error)
    advice = _ADVICE.get(-1 if number is None else number, "write elsewhere")
    return CalotypeError(f"cannot write {path}: {reason}; {advice}; nothing was left behind")


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
    _refuse_device(path)
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


def write_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path`, all or nothing.

    Args:
        path: of the file.
        data: all of it.
        replace: whether it may take the place of a file; no two processes write the same new one.

    Raises:
        UsageError: it is a device or a FIFO.
        CalotypeError: the disk is full, or the folder cannot be written to.
        FileExistsError: something is there and is not to be replaced.
    """

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_with(path, write, replace=replace)


def write_with(path: Path, write: Callable[[Path], object], *, replace: bool = True) -> None:
    """Let `write` make a temporary file, then flush it and rename it to `path`.

    Args:
        path: of the file.
        write: given the temporary file's name.
        replace: as for `write_file`.

    Raises:
        CalotypeError: as `write_file`.
        FileExistsError: as `write_file`.
    """
    _refuse_device(path)
    temporary = _beside(path, "tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask has it; writers may be stricter
        write(temporary)
        temporary.chmod(mode)
        _flush(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _rename_new(temporary, path)
        sync_folder(path.parent)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, CalotypeError | FileExistsError):
            raise
        raise write_error(path, error) from error
    except BaseException:  # Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends well.

    Raises:
        CalotypeError: the folder cannot be made or renamed.
    """
    temporary = _beside(path, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
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


def _refuse_device(path: Path) -> None:
    """Renaming a file over /dev/null would take it from everybody; root could.

    Raises:
        UsageError: something is there that is neither a file nor a folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"got output {path}, which is a device or a FIFO; expected a file name")


def temporary_of(name: str) -> str | None:
    """What a temporary file of `write_with` was to become, from its name; None if it is not ours.

    Of a name above 100 bytes it is the beginning.
    """
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else found[1]


def _beside(path: Path, ending: str) -> Path:
    """A hidden name of this process in the same folder; systems count names' bytes, to 255."""
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}.{os.getpid()}.{ending}")


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
