"""Running things in a process of their own, with limits, without paying for imports each time.

Children are forked from a server that has imported much and computed nothing: forked from a test
process, which has, they would wait for threads of its pools that they do not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

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
    """Call `task` in a new process whose current folder is `folder`; its result is the code.

    Args:
        task: what to do; sent by cloudpickle.
        folder: also takes the child's streams, `.out` and `.err`, for a moment.
        seconds: it is killed after them.
        closed: numbers of the standard streams that are closed instead.
    """
    module = sys.modules[task.__module__]  # the server cannot import tests by their names
    cloudpickle.register_pickle_by_value(module)
    try:
        return _ask((task, folder, seconds, tuple(closed), dict(os.environ)))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def preload(names: Sequence[str]) -> None:
    """Let the server import modules, as far as it can."""
    _ask(list(names))


def _ask(request: Any) -> Any:
    if not _server:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        _server.append(
            subprocess.Popen(
                [sys.executable, "-c", "import apart; apart.serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        )
    server = _server[0]
    assert server.stdin is not None and server.stdout is not None
    cloudpickle.dump(request, server.stdin)
    server.stdin.flush()
    return pickle.load(server.stdout)


_server: list[subprocess.Popen[bytes]] = []


def serve() -> None:
    """The server's loop; ends with its input."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        if isinstance(request, list):
            for name in request:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            answer = None
        else:
            answer = _fork(*request)
        pickle.dump(answer, answers)
        answers.flush()


def _fork(
    task: Callable[[], int],
    folder: Path,
    seconds: float,
    closed: Sequence[int],
    environment: dict[str, str],
) -> Outcome:
    out, err = folder / ".out", folder / ".err"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
                stream = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if number else 0))
                os.dup2(stream, number)
                os.close(stream)
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
