"""Work over items as Ray Data jobs: the same functions as in local processes, on a cluster.

Every item is a row of its own, and what is computed of it a file written under its final name
when it is whole. Ray starts an item whose worker died again, on another worker; the finished ones
are not touched. Of more than `MOST_BLOCKS` items several share a block, and those of a dead
worker's block that are finished are found there and skipped. Data and outputs must lie under the
same paths on all machines (a shared disk).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from calotype.errors import CalotypeError, MissingExtra

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
"""Times that an item is started again after its worker died; one that kills every worker ends."""

MOST_BLOCKS = 8192
"""Ray keeps an account of each block: more would slow it down and fill its memory."""

_LOCAL = "local"
_AUTO = "auto"


@dataclass(frozen=True)
class _Failed:
    """An error that the user is to see, carried home from a worker."""

    error: CalotypeError


def ray_map(
    items: Sequence[T], task: Callable[[T], R], *, address: str, workers: int
) -> Iterator[R]:
    """Results of `task` over `items`, each on any worker, as they come.

    Args:
        items: picklable and small; a list, or a sequence that makes its items when asked for,
            which goes to the workers itself while Ray is told numbers alone.
        task: a function of an installed module, or a `functools.partial` of one.
        address: see `connected`.
        workers: of a Ray that is started here.

    Raises:
        MissingExtra: Ray is not installed.
        CalotypeError: the cluster cannot be reached, an item failed, or killed its workers.
    """
    item_of = _reader(items)

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        return {"result": _carried(task, item_of(row))}

    return _mapped(items, apply, address, workers, max_retries=RETRIES)


def ray_actor_map(
    items: Sequence[T],
    make: Callable[[], Callable[[T], R]],
    *,
    address: str,
    workers: int,
    gpus: float = 0.0,
) -> Iterator[R]:
    """The same by actors, each of which makes what it needs (a model) once, by `make`.

    Args:
        items: these, the address and the errors are as in `ray_map`.
        make: a class or function of an installed module, or a `functools.partial` of one; what it
            returns is called with each item.
        address: see `connected`.
        workers: the actors; fewer where there is no room for all.
        gpus: of each actor, a fraction allowed; 0 = none.
    """
    item_of = _reader(items)

    class Actor:
        def __init__(self) -> None:
            self.task = make()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return {"result": _carried(self.task, item_of(row))}

    options: dict[str, Any] = {"num_gpus": gpus} if gpus > 0 else {"num_cpus": 1}
    options |= {"max_restarts": -1, "max_task_retries": RETRIES}
    pool = _ray().data.ActorPoolStrategy(min_size=1, max_size=max(1, min(workers, len(items))))
    return _mapped(items, Actor, address, workers, compute=pool, **options)


def _mapped(
    items: Sequence[Any], work: Any, address: str, workers: int, **options: Any
) -> Iterator[Any]:
    with connected(address, workers):
        if len(items) > 0:
            yield from _results(_rows(items).map(work, **options))


@contextmanager
def connected(
    address: str, workers: int, *, part: str = "ray.data", extra: str = "ray"
) -> Iterator[None]:
    """Ray for the length of a `with` block, unless this process is connected already.

    Args:
        address: "local" starts a Ray here with `workers` workers; "auto" takes the one that runs
            here or that RAY_ADDRESS names, and starts one if there is none; else the address of a
            cluster, "host:port" or "ray://host:port".
        workers: see above.
        part: of Ray, which is needed.
        extra: that brings it.

    Raises:
        MissingExtra: Ray is not installed.
        CalotypeError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    ray = _ray(part, extra)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if address == _LOCAL:
        options = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address=None if address == _AUTO else address,
            logging_level="ERROR",
            log_to_driver=False,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CalotypeError(
            f"cannot reach Ray at {address!r}: {reason}; start it, or give --ray local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _rows(items: Sequence[Any]) -> Any:
    """A data set with a block for each item: what a dead worker had in hand is one item."""
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # else a line for every job
    if isinstance(items, list | tuple):
        rows = [{"item": item} for item in items]
        return ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
    blocks = np.array_split(np.arange(len(items)), min(len(items), MOST_BLOCKS))
    return ray.data.from_numpy(blocks)


def _reader(items: Sequence[T]) -> Callable[[dict[str, Any]], T]:
    """What finds the item of a row that `_rows` made; it is sent to the workers."""
    if isinstance(items, list | tuple):
        return lambda row: row["item"]  # type: ignore[no-any-return]
    return lambda row: items[int(row["data"])]


def _carried(task: Callable[[T], R], item: T) -> R | _Failed:
    try:
        return task(item)
    except CalotypeError as error:
        return _Failed(error)


def _results(rows: Any) -> Iterator[Any]:
    ray = _ray()
    try:
        for row in rows.iter_rows():
            result = row["result"]
            if isinstance(result, _Failed):
                raise result.error
            yield result
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise CalotypeError(
            f"a Ray worker failed: {reason}; run the command again: what is finished is kept"
        ) from error


def _ray(part: str = "ray.data", extra: str = "ray") -> Any:
    try:
        ray = importlib.import_module("ray")
        importlib.import_module(part)
    except ImportError as error:
        raise MissingExtra(extra, part.replace(".", "[") + "]") from error
    return ray
