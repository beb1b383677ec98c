"""Work over all examples of a data set, in chunks, here or in local processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from calotype.data.open import open_part
from calotype.data.source import EncodedSource
from calotype.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Chunk:
    """Examples `start` to `stop` (exclusive) of a part and split of the data at `path`."""

    path: Path
    part: str
    split: str | None
    start: int
    stop: int


def chunks_of(path: Path, part: str, split: str | None = None, *, size: int) -> tuple[Chunk, ...]:
    """The whole part (of one split; None = all) in chunks of `size` examples."""
    length = len(source_of(path, part, split))
    starts = range(0, length, size)
    return tuple(Chunk(path, part, split, start, min(start + size, length)) for start in starts)


@functools.lru_cache(maxsize=4)
def source_of(path: Path, part: str, split: str | None = None) -> EncodedSource:
    """The part, opened once in each process."""
    return open_part(path, part, split=split)


def work_over(
    chunks: Sequence[Chunk], task: Callable[[Chunk], T], *, processes: int
) -> Iterator[T]:
    """Results of `task` as they come, in no fixed order when there are several processes.

    `task` must be a function of a module, or a `functools.partial` of one.
    """
    if processes < 1:
        raise UsageError(f"got processes={processes}; expected at least 1")
    if processes == 1 or len(chunks) < 2:
        yield from map(task, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(chunks)), mp_context=context) as pool:
        futures = [pool.submit(task, chunk) for chunk in chunks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
