"""Running things in a process of their own, with limits, without paying for imports each time.

The child is forked from a test process that has imported everything and computed nothing, so that
no thread pool is cut in half.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_BYTES = 3 * 2**30
"""Address space beyond what the test process has mapped; torch maps much and touches little."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended; `code` is None if it had to be killed, negative for a signal."""

    code: int | None
    out: str
    err: str


def in_child(
    task: Callable[[], int], folder: Path, *, seconds: float = 30.0, closed: Sequence[int] = ()
) -> Outcome:
    """Call `task` in a forked child whose current folder is `folder`; its result is the code.

    Args:
        task: what to do.
        folder: also takes the child's streams, `.out` and `.err`, for a moment.
        seconds: it is killed after them.
        closed: numbers of the standard streams that are closed instead.
    """
    out, err = folder / ".out", folder / ".err"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
                stream = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if number else 0))
                os.dup2(stream, number)
                os.close(stream)
            # pytest's streams go where they were; the child has those of a fresh process.
            for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
                if number in closed:
                    os.close(number)
                    setattr(sys, name, None)
                else:
                    setattr(sys, name, os.fdopen(number, mode, closefd=False))
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
            code = task()
        except BaseException:
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(code)
    status = _wait(child, seconds)
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return Outcome(status, *texts)


def _wait(child: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def tree(folder: Path) -> dict[str, str]:
    """Hash of every regular file below, by name; of all else what it is; nothing is followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = f"mode {path.lstat().st_mode:o}"
    return found
