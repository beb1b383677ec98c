"""Several processes that train together: who they are, and what they send each other.

`torchrun` starts the processes and says in the environment which is which (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Tensors of the network go over NCCL between GPUs and over
gloo between CPUs; what is agreed on goes over gloo, which waits as long as rank 0 needs
for work that it does alone. A process that fails says so in the launcher's store, so that one
error is printed and not one a process; the others notice by their broken connections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from calotype.errors import CalotypeError
from calotype.launch import LONGEST_WAIT, Place, launched_place

T = TypeVar("T")
_FAILED = "calotype/failed"
_COURTESY_SECONDS = 5.0


@dataclass(eq=False)
class Group:
    """The processes that train together; one alone has nothing to ask and nobody to wait for.

    Every method but `device` and `claim_failure` is called by all processes at the same place.

    Args:
        place: which process this is.
        store: of the launcher; None for one process.
        control: the gloo group that decisions go over; None for one process.
    """

    place: Place = field(default_factory=Place)
    store: Any = None
    control: Any = None

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.place.rank

    @property
    def world_size(self) -> int:
        """Count of processes."""
        return self.place.world_size

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.world_size == 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """Sums over all processes of numbers on the CPU."""
        if not self.alone:
            dist.all_reduce(numbers, group=self.control)
        return numbers

    def max(self, number: float) -> float:
        """The largest of all processes' numbers."""
        if self.alone:
            return number
        value = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self.control)
        return float(value)

    def all(self, condition: bool) -> bool:
        """Whether it holds on every process."""
        return self.max(0.0 if condition else 1.0) == 0.0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if not self.alone:
            dist.barrier(group=self.control)

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Let rank 0 work while the others wait; what comes of it, all get."""
        if self.alone:
            return work()
        return cast(T, self.broadcast(work() if self.is_rank_zero else None))

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    @torch.no_grad()
    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of rank 0."""
        if self.alone:
            return
        for tensor in tensors:
            sent = tensor.contiguous()
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)

    def device(self, name: str) -> str:
        """This process's own device of a kind: "cuda" is "cuda:1" for the second on a machine."""
        return self.place.device(name)

    def claim_failure(self) -> bool:
        """Whether this process is the first that fails, so that its error is the one reported."""
        if self.store is None:
            return True
        try:
            return bool(self.store.add(_FAILED, 1) == 1)
        except RuntimeError:  # the launcher itself has gone
            return True


ALONE = Group()


@contextmanager
def open_group() -> Iterator[Group]:
    """Join the other processes, if a launcher has started several.

    Raises:
        CalotypeError: the connection to the other processes broke.
        OtherProcessFailed: another process has failed, and said why.
    """
    place = launched_place()
    if place.world_size == 1:
        yield ALONE
        return
    store, _, _ = next(iter(rendezvous("env://", place.rank, place.world_size)))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world_size)
    group = Group(place, store=store, control=dist.new_group(backend="gloo", timeout=LONGEST_WAIT))
    try:
        yield group
    except Exception as error:
        # No orderly farewell: others may be waiting for what this process no longer sends.
        if not group.claim_failure():
            let_other_report()
            raise OtherProcessFailed from error
        if isinstance(error, dist.DistError) or _broken_connection(error):
            raise CalotypeError(
                f"process {place.rank} lost the others ({_first_line(error)}); the last "
                "checkpoint is whole: continue with --resume"
            ) from error
        raise
    dist.destroy_process_group()
    # The last reference: gloo's threads end here. One that is still freeing a tensor while the
    # interpreter ends would take the process down.
    group.control = None


def let_other_report() -> None:
    """Wait for the process that reports a failure: torchrun ends all when the first one ends."""
    time.sleep(_COURTESY_SECONDS)


class OtherProcessFailed(Exception):
    """This process ends because another one has failed, which says why."""


def _broken_connection(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
