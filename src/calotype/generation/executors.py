"""Work shared out among the processes that torchrun started.

The other executors, local processes and Ray, are `data.work.work_over` and `data.ray_jobs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

_LONGEST_WAIT = timedelta(days=7)  # for the slowest of them
T = TypeVar("T")
R = TypeVar("R")


def torchrun_rank() -> int:
    """Number of this process among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def torchrun_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def torchrun_device(device: str) -> str:
    """The device of this process: each on a machine has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def share_out(items: Sequence[T], task: Callable[[T], R]) -> Iterator[R]:
    """Results of `task`, in every process those of all, when all are done.

    Each process does every so many-th item. Needs the environment that torchrun sets.
    """
    from torch import distributed

    distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        own = [task(item) for item in items[torchrun_rank() :: torchrun_size()]]
        found: list[list[R] | None] = [None] * torchrun_size()
        distributed.all_gather_object(found, own)
    finally:
        distributed.destroy_process_group()
    for part in found:
        yield from part or ()
