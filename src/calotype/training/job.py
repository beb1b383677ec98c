"""One task of a run, its data, and how far it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from calotype.config.recipe import TrainConfig
from calotype.data.source import ExampleSource
from calotype.training.distributed import Group
from calotype.training.state import TrainState
from calotype.training.task import AnyTask


@dataclass(frozen=True)
class Job:
    """One task of a run.

    Args:
        offset: images that earlier stages were trained on.
        source: of examples.
        state: changes.
        preserved: examples of what was known before, mixed into every batch, or None.
    """

    offset: int
    source: ExampleSource
    state: TrainState
    preserved: ExampleSource | None = None

    @property
    def task(self) -> AnyTask:
        """What is trained."""
        return self.state.task

    @property
    def config(self) -> TrainConfig:
        """Of the task."""
        return self.state.task.config

    @property
    def group(self) -> Group:
        """The processes that train it."""
        return self.state.parallel.group

    @property
    def fingerprint(self) -> str:
        """Of all data that is trained on, and of what else the task learns from."""
        parts = [self.source.fingerprint]
        if self.preserved is not None:
            parts.append(self.preserved.fingerprint)
        if self.task.fingerprint is not None:
            parts.append(self.task.fingerprint)
        return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def images(self) -> int:
        """Images over all stages so far."""
        return self.offset + self.state.images_seen

    @property
    def finished(self) -> bool:
        """Whether the task has seen all its images."""
        return self.state.images_seen >= self.config.total_images
