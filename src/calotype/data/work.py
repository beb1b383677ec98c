"""Work over all examples of a data set, in chunks: here, in local processes or on Ray."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from calotype.data.columns import Selection
from calotype.data.open import open_part
from calotype.data.source import EncodedSource, SourceReport
from calotype.errors import CalotypeError, UsageError

T = TypeVar("T")
R = TypeVar("R")

_KEPT_SOURCES = 4
_AHEAD = 4
"""Items a process is sent ahead of its work: more would only fill memory."""

_kept: OrderedDict[DataPart, EncodedSource] = OrderedDict()


@dataclass(frozen=True)
class DataPart:
    """What is selected of one part of a data set, as it was when the work began.

    Args:
        path: of the data, absolute: work may be done elsewhere.
        part: name of the part, as `open.parts` gives it.
        selection: which examples, and what makes their captions.
        fingerprint: of the source; work on data that changed since is refused.
        length: count of examples.
    """

    path: Path
    part: str
    selection: Selection
    fingerprint: str
    length: int


@dataclass(frozen=True)
class Chunk:
    """Examples `start` to `stop` (exclusive) of a part."""

    data: DataPart
    start: int
    stop: int


def open_for_work(path: Path, part: str, selection: Selection) -> DataPart:
    """Open a part as it is now, and keep it open in this process.

    Raises:
        UsageError: there is nothing at `path`, or it cannot be read as what it seems to be.
    """
    path = path.resolve()
    source = open_part(path, part, selection)
    data = DataPart(path, part, selection, source.fingerprint, len(source))
    _keep(data, source)
    return data


def source_of(data: DataPart) -> EncodedSource:
    """The part, opened once in each process.

    Raises:
        CalotypeError: the data changed since `open_for_work`.
    """
    if data in _kept:
        return _kept[data]
    source = open_part(data.path, data.part, data.selection)
    if source.fingerprint != data.fingerprint:
        raise CalotypeError(
            f"{data.path} changed while it was worked on; run the command again: what is finished "
            "and still fits is kept"
        )
    _keep(data, source)
    return source


def _keep(data: DataPart, source: EncodedSource) -> None:
    _kept[data] = source
    while len(_kept) > _KEPT_SOURCES:
        _kept.popitem(last=False)


class Chunks(Sequence[Chunk]):
    """A part in chunks of `size` examples, made when asked for: a part may have millions."""

    def __init__(self, data: DataPart, size: int) -> None:
        self.data = data
        self._starts = range(0, data.length, size)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        start = self._starts[index]
        return Chunk(self.data, start, min(start + self._starts.step, self.data.length))


def usable_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Work:
    """Who does the work over a data set, and who hears of it.

    Args:
        processes: local processes; 1 = this one. On a Ray started here, its workers.
        ray: address of a Ray cluster (see `ray_jobs.connected`); None = local processes.
        on_open: called with what was found of each part of the data when it was opened.
        on_result: called with each result as it comes, for progress.
    """

    processes: int = 1
    ray: str | None = None
    on_open: Callable[[SourceReport], None] = lambda report: None
    on_result: Callable[[Any], None] = lambda result: None

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise UsageError(f"got processes={self.processes}; expected at least 1")

    def over(self, items: Sequence[T], task: Callable[[T], R]) -> Iterator[R]:
        """Results of `task` as they come, in no fixed order when there are several processes.

        Args:
            items: of the work; small, for they are sent to whoever does it. A sequence that makes
                its items when asked for is never held whole.
            task: a function of a module, or a `functools.partial` of one. It may be called again
                for an item whose worker died: what it leaves must be whole, and be found by the
                next call.

        Raises:
            CalotypeError: a process died.
        """
        for result in self._results(items, task):
            self.on_result(result)
            yield result

    def _results(self, items: Sequence[T], task: Callable[[T], R]) -> Iterator[R]:
        if self.ray is not None:
            from calotype.data.ray_jobs import ray_map

            return ray_map(items, task, address=self.ray, workers=self.processes)
        if self.processes == 1 or len(items) < 2:
            return map(task, items)
        return _work_in_processes(items, task, min(self.processes, len(items)))


def _work_in_processes(items: Sequence[T], task: Callable[[T], R], processes: int) -> Iterator[R]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=leave_with_parent) as pool:
        rest, waiting = iter(items), set[Future[R]]()
        try:
            while True:
                some = islice(rest, processes * _AHEAD - len(waiting))
                waiting |= {pool.submit(task, item) for item in some}
                if not waiting:
                    return
                done, waiting = wait_for(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise CalotypeError(
                "a process died, probably for lack of memory; run the command again with fewer "
                "processes: what is finished is kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def leave_with_parent() -> None:
    """End this process when the one that started it ends, however that ends.

    The pool's own processes would wait for ever for work from a parent that was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="calotype-parent", daemon=True).start()
