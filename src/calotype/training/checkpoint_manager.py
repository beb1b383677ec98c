"""The checkpoints of a stage in training: written beside the training thread, gone back to."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

import calotype
from calotype.config.recipe import Recipe
from calotype.config.typed_json import to_dict
from calotype.runtime import Runtime
from calotype.training.background import BackgroundWork
from calotype.training.checkpoint import (
    CheckpointContent,
    checkpoints,
    fault,
    point_latest,
    prune,
    read_state,
    read_tensors,
    remove_folder,
    write_checkpoint,
)
from calotype.training.guards import Guards
from calotype.training.job import Job
from calotype.training.sharded_checkpoint import (
    is_sharded,
    read_parts,
    read_whole,
    write_shards,
)
from calotype.training.state import Snapshot, TrainState, restore, snapshot


class CheckpointManager:
    """Writes a job's checkpoints; leaving the `with` block waits for the last.

    Of several processes the first one writes, and all of them if the state is spread over them;
    all call `write` and `rewind` at the same place.

    Args:
        folder: RUN/checkpoints.
        recipe: of the run.
        job: what is trained.
        done: exported models of the stages before this one.
        runtime: how it is computed.

    `latest` is this stage's newest checkpoint, or None.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        job: Job,
        *,
        done: Sequence[nn.Module],
        runtime: Runtime,
    ) -> None:
        """Keep the parts."""
        self.latest: Path | None = None
        self._folder = folder
        self._recipe = recipe
        self._job = job
        self._done = tuple(done)
        self._runtime = runtime
        self._work = BackgroundWork("checkpoint")

    def __enter__(self) -> CheckpointManager:
        """Nothing to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the checkpoint in hand."""
        self._work.__exit__(kind, error, trace)

    def write(self, *, decay_start: bool) -> None:
        """Copy the state, and write it while training goes on.

        Args:
            decay_start: the learning rate decays from here; such a checkpoint is never pruned.

        Raises:
            CalotypeError: the checkpoint before could not be written.
        """
        self._work.wait()
        group, spread = self._job.group, self._job.state.parallel.spread
        if not spread and not group.is_first:
            return
        copied = snapshot(self._job.state)
        if not group.is_first:
            write_shards(group.shared(Path()), copied.tensors, group)
            return
        content, keep = self._content(copied, decay_start), self._job.config.keep_checkpoints

        def work() -> None:
            self._job.task.write_beside(self._folder.parent, copied.averaged, content.images)
            self.latest = write_checkpoint(self._folder, content)
            prune(self._folder, keep=keep)

        if spread:
            work()  # the processes talk to each other meanwhile: nothing else may
        else:
            self._work.start(work)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; never wait."""
        self._work.check()

    def rewind(self, guards: Guards) -> bool:
        """Put the job's state back to the stage's last good checkpoint; False where it has none.

        One that was written in the middle of a spike is not good, unless there is no other.
        What is newer than the one gone back to is removed: a resumed run must not begin there.
        """
        self._work.wait()
        good = self._job.group.from_first(lambda: self._back_to_good(guards))
        if good is None:
            return False
        load_state(self._job.state, good)
        return True

    def _back_to_good(self, guards: Guards) -> Path | None:
        if self.latest is None:
            return None
        newer, stage = list[Path](), len(self._done)
        for path in checkpoints(self._folder):
            if fault(path) is None:
                state = read_state(path)
                if state["stage"] != stage:
                    break
                if guards.settled(state["recent_losses"]):
                    point_latest(self._folder, path.name)
                    for passed in newer:
                        remove_folder(passed)
                    self.latest = path
                    return path
            newer.append(path)
        return self.latest

    def _content(self, copied: Snapshot, decay_start: bool) -> CheckpointContent:
        job = self._job
        state = {
            "format": 1,
            "images": job.images,
            "stage": len(self._done),
            "totals": [stage.total_images for stage in self._recipe.stages],
            "decay_start": decay_start,
            **copied.numbers,
            "data_fingerprint": job.fingerprint,
            "runtime": self._runtime.to_dict(),
            "processes": job.group.world_size,
            "versions": versions(),
            "recipe": to_dict(self._recipe),
        }

        def write_model(folder: Path) -> None:
            job.task.write_model(folder, copied.averaged, self._done, self._recipe)

        def write_parts(fresh: Path) -> None:
            write_shards(job.group.shared(fresh), copied.tensors, job.group)

        shards = write_parts if job.state.parallel.spread else None
        return CheckpointContent(job.images, copied.tensors, state, write_model, shards)


def load_state(state: TrainState, path: Path) -> None:
    """Put a state back to a checkpoint, whoever wrote it; every process calls this.

    Raises:
        CalotypeError: the checkpoint belongs to another recipe.
    """
    if not is_sharded(path):
        tensors = read_tensors(path)
    elif state.parallel.spread:
        tensors = read_parts(path, state, state.parallel.group)
    else:
        tensors = read_whole(path)
    restore(state, tensors, read_state(path))


def versions() -> dict[str, str]:
    """What decides the bits beside the recipe."""
    return {
        "calotype": calotype.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
