"""Work shared out among the processes that torchrun started.

The other executors, local processes and Ray, are `data.work.work_over` and `data.ray_jobs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from calotype.launch import LONGEST_WAIT, launched_place

T = TypeVar("T")
R = TypeVar("R")


def share_out(items: Sequence[T], task: Callable[[T], R]) -> Iterator[R]:
    """Results of `task`, in every process those of all, when all are done.

    Each process does every so many-th item. Needs the environment that torchrun sets.
    """
    from torch import distributed

    place = launched_place()
    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        own = [task(item) for item in items[place.rank :: place.world_size]]
        found: list[list[R] | None] = [None] * place.world_size
        distributed.all_gather_object(found, own)
    finally:
        distributed.destroy_process_group()
    for part in found:
        yield from part or ()
