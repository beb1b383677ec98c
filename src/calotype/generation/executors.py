"""Who works off a list of shards: this process, several, torchrun's ranks, or Ray's actors.

A shard's result does not depend on who has it. What it leaves is a file written under its final
name when it is whole, so that a shard of a worker that was killed is found missing, and done again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from calotype.data.work import Work
from calotype.launch import LONGEST_WAIT, launched_place

if TYPE_CHECKING:
    from calotype.generation.cascade import Job

S = TypeVar("S")
R = TypeVar("R")
J = TypeVar("J")


@dataclass(frozen=True)
class Executor:
    """Who works.

    Args:
        workers: local processes, 1 = this one, or all that torchrun has started; on Ray, actors.
        ray: address of a Ray cluster, see `ray_jobs.connected`; None = no Ray.
        gpus: of each actor, a fraction allowed; 0 = none.
    """

    workers: int = 1
    ray: str | None = None
    gpus: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether this process works, which may show what it does."""
        return self.workers == 1 and self.ray is None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """One Ray for several lists, or torchrun's ranks joined, for a `with` block."""
        if self.ray is None:
            with joined():
                yield
            return
        from calotype.data.ray_jobs import connected

        with connected(self.ray, self.workers):
            yield

    def results(
        self,
        shards: Sequence[S],
        make: Callable[[J], Callable[[S], R]],
        job: J,
        *,
        here: Callable[[J], Callable[[S], R]] | None = None,
    ) -> Iterator[R]:
        """Results of all shards, in no fixed order.

        Args:
            shards: picklable and small; a sequence may make them when asked for.
            make: a class or function of a module; what it makes of the job (a loaded model) is
                made once in each process, and called with each shard.
            job: picklable; equal jobs are made once.
            here: in place of `make` where this process works.

        Raises:
            CalotypeError: a process died, or a shard failed.
        """
        if self.ray is not None:
            from calotype.data.ray_jobs import ray_actor_map

            task = functools.partial(make, job)
            options: dict[str, Any] = {"address": self.ray, "workers": self.workers}
            return ray_actor_map(shards, task, **options, gpus=self.gpus)
        if self.alone or len(shards) == 1:
            own = (here or make)(job)
            return _shared(shards, own) if launched_place().world_size > 1 else map(own, shards)
        return Work(processes=self.workers).over(
            shards, functools.partial(_by_own, make=make, job=job)
        )


def _shared(shards: Sequence[S], task: Callable[[S], R]) -> Iterator[R]:
    """Results of all shards in every process that torchrun started, when all are done."""
    from torch import distributed

    place = launched_place()
    with joined():
        own = [task(shards[i]) for i in range(place.rank, len(shards), place.world_size)]
        found: list[list[R] | None] = [None] * place.world_size
        distributed.all_gather_object(found, own)
    for part in found:
        yield from part or ()


@contextmanager
def joined() -> Iterator[None]:
    """Join torchrun's other ranks for a `with` block, unless they are joined already.

    They can be joined once: who has several lists worked off does so in one block.
    """
    place = launched_place()
    if place.world_size == 1:
        yield
        return
    from torch import distributed

    if distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Wait for torchrun's other ranks, within `joined`; nothing to do for one process."""
    if launched_place().world_size > 1:
        from torch import distributed

        distributed.barrier()


def _by_own(shard: S, make: Callable[[J], Callable[[S], R]], job: J) -> R:
    """A shard's result by what this process has made of the job."""
    if not _kept or _kept[0] != (make, job):
        _kept[:] = [(make, job), make(job)]
    result: R = _kept[1](shard)
    return result


_kept: list[Any] = []


def on_workers(job: Job, workers: int, *, threads: int | None, gpus: float) -> Job:
    """The job for several processes: each with its part of the threads, all with one number type.

    Args:
        job: as settled for this process.
        workers: processes.
        threads: of each, if the user said so.
        gpus: of each.
    """
    own = job.runtime.threads if threads is not None else max(1, job.runtime.threads // workers)
    return replace(job, runtime=replace(job.runtime, threads=own), gpus=gpus)
