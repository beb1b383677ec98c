"""Work shared out among the processes that torchrun started.

The other executors, local processes and Ray, are `data.work.work_over` and `data.ray_jobs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def torchrun_rank() -> int:
    """Number of this process among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def torchrun_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_out(items: Sequence[T], task: Callable[[T], R]) -> Iterator[R]:
    """Results of `task`, in every process those of all, when all are done.

    Each process does every so many-th item. Needs the environment that torchrun sets.
    """
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        own = [task(item) for item in items[torchrun_rank() :: torchrun_size()]]
        found: list[list[R] | None] = [None] * torchrun_size()
        distributed.all_gather_object(found, own)
    finally:
        distributed.destroy_process_group()
    for part in found:
        yield from part or ()
