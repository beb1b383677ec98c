"""Scores by other people's programs: HPSv2, ImageReward, PickScore, VQAScore, ...

A scorer is a command with an environment of its own. It reads JSON lines, {"key", "image",
"caption"} with the path of a PNG or JPEG file, and answers each with {"key", "score"}, in any
order; it is started once, and ends when its input does. One that does not answer in time is killed,
with all processes that it has started.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Protocol

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.results import CHECKED
from calotype.evaluation.samples import Sample, SampleSet
from calotype.evaluation.samples.shard import encoding_of
from calotype.storage.files import make_folder, write_file
from calotype.storage.reading import read_object

_LONGEST_LINE = 65536
_LONGEST_NAME = 60
_READ_BYTES = 65536
TIMEOUT_SECONDS = 600.0
"""For each answer, loading of a model included."""
TAKEN_NAMES = (*(one.name for one in fields(Sample)), CHECKED)
"""Columns that scores have beside those of programs."""


@dataclass(frozen=True)
class Scorer:
    """A program that scores: its name, beside every number, and the words of its command.

    `timeout_seconds` is how long it may take for its next answer.
    """

    name: str
    command: tuple[str, ...]
    timeout_seconds: float = TIMEOUT_SECONDS

    @property
    def fingerprint(self) -> str:
        """Of what was run; what lies behind the command is its owner's to keep the same."""
        return hashlib.sha256(json.dumps([self.name, *self.command]).encode()).hexdigest()


def parse_scorer(text: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Scorer:
    """Read NAME=COMMAND.

    Raises:
        UsageError: it is none.
    """
    name, equals, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"got the scorer {text!r:.200}: {error}; check its quotes") from error
    if not equals or not name.strip() or not words:
        raise UsageError(
            f"got the scorer {text!r:.200}; expected NAME=COMMAND, a name and a program"
        )
    name = name.strip()
    if not name.isprintable() or len(name) > _LONGEST_NAME or name in TAKEN_NAMES:
        raise UsageError(
            f"got a scorer named {name!r:.80}; expected a name of its own, at most {_LONGEST_NAME} "
            f"printable characters, and none of {', '.join(TAKEN_NAMES)}"
        )
    return Scorer(name, tuple(words), timeout_seconds)


def check_program(scorer: Scorer) -> None:
    """Refuse a scorer whose program is not there.

    Raises:
        UsageError: it is not.
    """
    if shutil.which(scorer.command[0]) is None:
        raise UsageError(
            f"cannot start the scorer {scorer.name!r}: got {scorer.command[0]!r:.200}, which is no "
            "program here; expected NAME=COMMAND"
        )


def score_samples(
    samples: SampleSet, scorer: Scorer, folder: Path, *, on_shard: Callable[[int], None]
) -> list[float]:
    """The scores of all images of a set, in its order.

    Args:
        samples: the set.
        scorer: the program; it is started only if there is something to score.
        folder: where the scores of each shard are kept, and found by the next run.
        on_shard: called with the number of images of each shard that is scored.

    Raises:
        UsageError: the program cannot be started.
        CalotypeError: it died, did not answer in time, or its answers make no sense.
    """
    scores: list[float] = []
    first, remaining = 0, list[tuple[Path, range]]()
    known: dict[Path, list[float]] = {}
    for shard in samples.manifest.shards:
        name = hashlib.sha256(f"{scorer.fingerprint} {shard.sha256}".encode()).hexdigest()
        path, numbers = folder / f"{name[:32]}.json", range(first, first + shard.rows)
        first += shard.rows
        kept = read_object(path).get("scores") if path.is_file() else None
        if isinstance(kept, list) and len(kept) == shard.rows:
            known[path] = [float(score) for score in kept]
            on_shard(shard.rows)
        remaining.append((path, numbers))
    wanted = [(path, numbers) for path, numbers in remaining if path not in known]
    if wanted:
        make_folder(folder)
        with _started(scorer) as ask:
            for path, numbers in wanted:
                known[path] = ask(samples, numbers, last=path == wanted[-1][0])
                text = json.dumps({"scorer": scorer.name, "scores": known[path]})
                write_file(path, text.encode())
                on_shard(len(numbers))
    for path, _ in remaining:
        scores += known[path]
    return scores


class _Ask(Protocol):
    def __call__(self, samples: SampleSet, numbers: range, *, last: bool) -> list[float]:
        """The scores of some images; after the last ones there are no more questions."""


@contextmanager
def _started(scorer: Scorer) -> Iterator[_Ask]:
    """The program running; what asks it for the scores of some images."""
    with tempfile.TemporaryDirectory(prefix="calotype-scores-") as place:
        errors = Path(place, "errors.txt").open("w+b")
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                scorer.command, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True
            )
        except OSError as error:
            command = shlex.join(scorer.command)
            raise UsageError(
                f"cannot start the scorer {scorer.name!r}, {command!r:.200}: {error.strerror}"
            ) from error

        assert process.stdin is not None and process.stdout is not None
        stdin, lines = process.stdin, _Lines(process.stdout)

        def ask(samples: SampleSet, numbers: range, *, last: bool) -> list[float]:
            asked = _files(samples, numbers, Path(place))
            writer = threading.Thread(target=_write, args=(stdin, asked, last), daemon=True)
            writer.start()
            found = _read(lines, asked, scorer, lambda: _last_words(process, errors))
            writer.join(scorer.timeout_seconds)  # it has answered what it may not have read
            if writer.is_alive():
                raise _too_late(scorer, f"read nothing more after {len(asked)} answers")
            return found

        try:
            yield ask
            with suppress(OSError):
                stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            if process.returncode is None:  # else its number may be another's by now
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            errors.close()


def _files(samples: SampleSet, numbers: range, place: Path) -> list[dict[str, Any]]:
    """The images as files, and what is asked about each."""
    asked = []
    for number in numbers:
        sample: Sample = samples.samples[number]
        data = samples.encoded(number)
        path = place / f"{number - numbers.start}.{encoding_of(data)}"
        path.write_bytes(data)
        asked.append({"key": sample.key, "image": str(path), "caption": sample.caption})
    return asked


def _write(stream: IO[bytes], asked: Sequence[dict[str, Any]], last: bool) -> None:
    with suppress(OSError):  # it has ended: the reader says so
        for question in asked:
            stream.write(json.dumps(question).encode() + b"\n")
        stream.flush()
        if last:  # a program that answers when all is read answers now; one that has not, ends
            stream.close()


class _Lines:
    """What a program writes, line by line, waited for no longer than until a time."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._rest = stream, b""

    def next(self, end: float) -> bytes | None:
        """The next line, cut where it is too long; empty at the end; None: not before `end`."""
        while b"\n" not in self._rest and len(self._rest) < _LONGEST_LINE:
            with selectors.DefaultSelector() as selector:
                selector.register(self._stream, selectors.EVENT_READ)
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
            data = os.read(self._stream.fileno(), _READ_BYTES)
            if not data:
                break
            self._rest += data
        cut = min(self._rest.find(b"\n") + 1 or len(self._rest), _LONGEST_LINE)
        line, self._rest = self._rest[:cut], self._rest[cut:]
        return line


def _read(
    lines: _Lines,
    asked: Sequence[dict[str, Any]],
    scorer: Scorer,
    last_words: Callable[[], str],
) -> list[float]:
    """One score for each question."""
    found: dict[str, float] = {}
    keys = {question["key"] for question in asked}
    end = time.monotonic() + scorer.timeout_seconds
    while len(found) < len(asked):
        line = lines.next(end)
        if line == b"":
            raise CalotypeError(
                f"the scorer {scorer.name!r} ended after {len(found)} of {len(asked)} images"
                f"{last_words()}; mend it and run the command again: finished shards are kept"
            )
        if line is not None and line.strip():
            key, score = _answer(line, keys, scorer)
            if key not in found:  # the same again is no progress
                end = time.monotonic() + scorer.timeout_seconds
            found[key] = score
        if line is None or time.monotonic() > end:
            raise _too_late(scorer, f"answered no more after {len(found)} of {len(asked)} images")
    return [found[question["key"]] for question in asked]


def _answer(line: bytes, keys: Container[str], scorer: Scorer) -> tuple[str, float]:
    """The key and the score of an image that was asked about."""
    try:
        answer = json.loads(line)
        key, score = answer["key"], float(answer["score"])
        is_asked = key in keys
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CalotypeError(
            f"the scorer {scorer.name!r} wrote {line[:80]!r}; expected lines such as "
            '{"key": "000001-0", "score": 0.25}, and its messages on stderr'
        ) from error
    if not is_asked or not math.isfinite(score):
        raise CalotypeError(
            f"the scorer {scorer.name!r} gave {score} to {key!r:.80}; expected a finite number "
            "for each image that was asked about"
        )
    return key, score


def _too_late(scorer: Scorer, what: str) -> CalotypeError:
    return CalotypeError(
        f"the scorer {scorer.name!r} {what} for {scorer.timeout_seconds:g} seconds, and was ended; "
        "mend it, or give it longer with --scorer-timeout, and run the command again: finished "
        "shards are kept"
    )


def _last_words(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """How the program ended, and the last line that it wrote to stderr."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    errors.seek(0)
    lines = errors.read()[-10_000:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" (exit code {process.returncode})" + (f": {last:.200}" if last else "")
