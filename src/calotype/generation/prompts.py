"""Long lists of captions, one a line, read as they are needed: memory does not grow with them.

Files are UTF-8; those that begin with the mark of UTF-16, as Windows programs write them, are that.
"""

from __future__ import annotations

import codecs
import contextlib
import signal
import sys
import tempfile
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from calotype.errors import CalotypeError, UsageError
from calotype.storage.reading import open_regular

_MOST_INPUT_BYTES = 2_000_000_000
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True)
class PromptFile:
    """A text file with a caption a line, as it was when it was opened.

    Args:
        path: absolute: it may be read by other processes.
        size: in bytes.
        modified: in nanoseconds.
        captions: how many.
        first: caption.
    """

    path: Path
    size: int
    modified: int
    captions: int
    first: str

    def read(self, offset: int = 0) -> Iterator[str]:
        """The captions from a line's offset in bytes on.

        Raises:
            CalotypeError: the file changed, or is gone.
        """
        try:
            state = self.path.stat()
            if (state.st_size, state.st_mtime_ns) != (self.size, self.modified):
                raise CalotypeError(f"{self.path} changed while it was sampled from; start again")
            for _, caption in _captions(self.path, offset):
                yield caption
        except OSError as error:
            reason = f"cannot read {self.path}: {error.strerror}"
            raise CalotypeError(f"{reason}; start again") from error


@dataclass(frozen=True)
class PromptShard:
    """Images `first` to `first + count` of a list; `offset` in bytes is of the first's caption."""

    first: int
    count: int
    offset: int


class PromptShards(Sequence[PromptShard]):
    """A list of images in shards of a fixed number; 8 bytes each, whatever the captions."""

    def __init__(self, prompts: PromptFile, *, repeats: int, size: int) -> None:
        """Find where each shard begins; each caption has `repeats` images."""
        self._total = prompts.captions * repeats
        self._size = size
        self._offsets = array("q")
        for number, (offset, _) in enumerate(_captions(prompts.path, 0)):
            while len(self._offsets) * size < (number + 1) * repeats:
                self._offsets.append(offset)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> PromptShard:  # type: ignore[override]  # no slices
        number = range(len(self))[index]
        first = number * self._size
        return PromptShard(first, min(self._size, self._total - first), self._offsets[number])


def shard_captions(prompts: PromptFile, shard: PromptShard, *, repeats: int) -> list[str]:
    """The caption of each image of a shard."""
    skip = shard.first % repeats
    images = (text for text in prompts.read(shard.offset) for _ in range(repeats))
    return list(islice(images, skip, skip + shard.count))


@contextmanager
def open_prompts(path: Path, *, shared: Path | None = None) -> Iterator[PromptFile]:
    """Count the captions of a file; "-" keeps the input in a file as long as the block lasts.

    Args:
        path: a text file, or "-".
        shared: folder for that file, where other machines see it; None = a temporary one.

    Raises:
        UsageError: the file cannot be read, or holds no caption.
    """
    with contextlib.ExitStack() as stack:
        name = path
        if str(path) == "-":
            folder = tempfile.TemporaryDirectory(prefix=".prompts-", dir=shared)
            name = Path(stack.enter_context(folder), "input.txt")
            stack.enter_context(_ended_by_signals())
            _keep_input(name)
        try:
            name = name.resolve()
            first, count = None, 0
            for _, caption in _captions(name, 0):
                first = caption if first is None else first
                count += 1
            state = name.stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot read {path}: {reason}; name a text file, or -") from error
        if first is None:
            raise UsageError(f"{path} holds no caption; expected one a line")
        yield PromptFile(name, state.st_size, state.st_mtime_ns, count, first)


def _keep_input(name: Path) -> None:
    """Write the standard input into a file.

    Raises:
        UsageError: there is no end of it.
    """
    with name.open("wb") as file:
        while part := sys.stdin.buffer.read(1 << 20):
            file.write(part)
            if file.tell() > _MOST_INPUT_BYTES:
                raise UsageError(
                    f"got more than {_MOST_INPUT_BYTES:,} bytes of captions on the input; write "
                    "them into a file and name that"
                )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process through its `with` blocks, which tidy up."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Those that are ignored, as nohup does, or handled by others, stay as they are.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _captions(path: Path, offset: int) -> Iterator[tuple[int, str]]:
    """Captions with the offset of their line.

    Only line feeds end a caption: str.splitlines would also cut at exotic separators.
    """
    with open_regular(path) as file:
        encoding = _UTF_16.get(file.read(2), "utf-8")
        file.seek(offset)
        for line in file if encoding == "utf-8" else _wide_lines(file, encoding):
            begin, offset = offset, offset + len(line)
            text = line.decode(encoding, errors="replace").removesuffix("\n").rstrip("\r")
            text = text.removeprefix("\ufeff") if begin == 0 else text
            if text.strip():
                yield begin, text


def _wide_lines(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Lines of UTF-16: the byte of a line feed may also be half of another character."""
    end, line = "\n".encode(encoding), b""
    while piece := file.readline():
        line += piece
        if encoding == "utf-16-le" and len(line) % 2 == 1:
            line += file.read(1)
        if len(line) % 2 == 0 and line.endswith(end):
            yield line
            line = b""
    if line:
        yield line
