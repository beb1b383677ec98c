"""The checkpoints of a task in training: written beside the training thread, gone back to."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

import calotype
from calotype.storage.files import remove_folder
from calotype.training.checkpoint import (
    checkpoints,
    fault,
    point_latest,
    prune,
    read_state,
    read_tensors,
    write_checkpoint,
    write_state,
    write_tensors,
)
from calotype.training.guards import Guards
from calotype.training.sharded_checkpoint import (
    Tensors,
    is_sharded,
    read_shards,
    write_shards,
)
from calotype.training.state import TrainState

_AVERAGE = "ema.safetensors"


@dataclass(eq=False)
class CheckpointManager:
    """Writes checkpoints of a state, and goes back to them.

    Of several processes rank 0 writes, and all of them if the state is sharded; all call `write`
    and `rewind` at the same place. Leaving the `with` block waits for the last checkpoint; its
    error comes up unless another one is on its way.

    Args:
        folder: RUN/checkpoints.
        state: what is written.
        facts: what a checkpoint says beside its counters: `stage`, recipe, versions.
        write_model: writes the averaged model, ready to use, into the folder of the checkpoint.
        latest: this stage's newest checkpoint, or None.
    """

    folder: Path
    state: TrainState
    facts: Mapping[str, Any]
    write_model: Callable[[Path, nn.Module], object]
    latest: Path | None = None

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._work: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self._wait()

    def _wait(self) -> None:
        """Wait for the checkpoint in hand, and raise its error."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def write(self) -> None:
        """Copy the state, and write it while training goes on.

        Raises:
            CalotypeError: the checkpoint before could not be written.
        """
        self._wait()
        state, group = self.state, self.state.parallel.group
        if state.parallel.sharded:
            tensors, average = state.tensors(), state.averaged_model()
            if group.is_rank_zero:
                # The processes talk to each other meanwhile: nothing else may.
                self._write(state.images, state.numbers(), tensors, average)
            else:
                write_shards(group.broadcast(Path()), tensors, group)
        elif group.is_rank_zero:
            average = copy.deepcopy(state.averaged_model())
            tensors = copy.deepcopy({**state.tensors(), _AVERAGE: {}})
            tensors[_AVERAGE] = dict(average.state_dict())  # one copy of it is enough
            self._work = self._pool.submit(
                self._write, state.images, state.numbers(), tensors, average
            )

    def _write(
        self, images: int, numbers: Mapping[str, Any], tensors: Tensors, average: nn.Module
    ) -> None:
        """Write one, and what lies beside it, on rank 0."""
        task, parallel = self.state.task, self.state.parallel

        def write(fresh: Path) -> None:
            if parallel.sharded:
                write_shards(parallel.group.broadcast(fresh), tensors, parallel.group)
            else:
                write_tensors(fresh, tensors)
            write_state(fresh, {"format": 1, "images": images, **numbers, **self.facts})
            self.write_model(fresh, average)

        task.write_beside(self.folder.parent, average, images)
        self.latest = write_checkpoint(self.folder, images, write, needed=_bytes(tensors))
        prune(self.folder, keep=task.config.keep_checkpoints)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; never wait."""
        if self._work is not None and self._work.done():
            self._wait()

    def rewind(self, guards: Guards) -> bool:
        """Put the state back to the stage's last good checkpoint; False where it has none.

        One that was written in the middle of a spike is not good, unless there is no other.
        What is newer than the one gone back to is removed: a resumed run must not begin there.
        """
        self._wait()
        good = self.state.parallel.group.on_rank_zero(lambda: self._back_to_good(guards))
        if good is None:
            return False
        load_state(self.state, good)
        return True

    def _back_to_good(self, guards: Guards) -> Path | None:
        if self.latest is None:
            return None
        newer = list[Path]()
        for path in checkpoints(self.folder):
            if fault(path) is None:
                state = read_state(path)
                if state["stage"] != self.facts["stage"]:
                    break
                if guards.settled(state["recent_losses"]):
                    point_latest(self.folder, path.name)
                    for passed in newer:
                        remove_folder(passed)
                    self.latest = path
                    return path
            newer.append(path)
        return self.latest


def load_state(state: TrainState, path: Path) -> None:
    """Put a state back to a checkpoint, whoever wrote it; every process calls this.

    Raises:
        CalotypeError: the checkpoint belongs to another recipe.
    """
    if is_sharded(path):
        tensors = read_shards(path, state if state.parallel.sharded else None)
    else:
        tensors = read_tensors(path)
    state.restore(tensors, read_state(path))


def versions() -> dict[str, str]:
    """What decides the bits beside the recipe."""
    return {
        "calotype": calotype.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _bytes(tensors: Tensors) -> int:
    """Of a checkpoint: its cascade holds the averaged weights once more; the rest is small."""
    sizes = {
        name: sum(t.numel() * t.element_size() for t in own.values())
        for name, own in tensors.items()
    }
    return sum(sizes.values()) + sizes[_AVERAGE]
