"""How this process was started: its place among those of torchrun, and its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

from calotype.errors import UsageError

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How OpenMP's threads wait for the next of an image's many small operations: they spin for some
microseconds, then sleep. Those that sleep at once take twice as long for an image of 64² on two
free cores, and those that spin for long take a core that others need (benchmarks/results.md)."""
LONGEST_WAIT = timedelta(days=7)
"""For the slowest: it may embed captions, sample grids, write checkpoints or work off a list."""


@dataclass(frozen=True)
class Place:
    """Which process this is.

    Args:
        rank: its number among all.
        world_size: how many there are.
        local_rank: its number on this machine: which GPU is its own.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def device(self, name: str) -> str:
        """This process's own device of a kind: "cuda" is "cuda:1" for the second on a machine."""
        return name if self.world_size == 1 or name != "cuda" else f"cuda:{self.local_rank}"


def prepare_environment() -> None:
    """Let idle OpenMP threads sleep soon, unless the user has decided how they wait.

    Spinning threads take the cores from those that load and train. It counts before torch is
    imported, so this module imports no torch.
    """
    if not WAITING.keys() & os.environ.keys():
        os.environ.update(WAITING)


def launched_place() -> Place:
    """What the launcher has put into the environment; one process without a launcher.

    Raises:
        UsageError: the environment contradicts itself.
    """
    if any(name not in os.environ for name in _ENVIRONMENT):
        return Place()
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE or LOCAL_RANK: {error}; start with torchrun") from error
    if not 0 <= rank < world_size:
        raise UsageError(f"got RANK={rank} of WORLD_SIZE={world_size}; start with torchrun")
    return Place(rank, world_size, local_rank)
