"""A task of a run, and the data it is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from calotype.data.source import ExampleSource
from calotype.training.task import AnyTask


@dataclass(frozen=True)
class Job:
    """A task of a run, ready for its first step or for a checkpoint.

    Args:
        task: what is trained.
        source: of examples.
        preserved: examples of what was known before, mixed into every batch, or None.
    """

    task: AnyTask
    source: ExampleSource
    preserved: ExampleSource | None = None

    @property
    def fingerprint(self) -> str:
        """Of all data that is trained on, and of what else the task learns from."""
        parts = [self.source.fingerprint]
        if self.preserved is not None:
            parts.append(self.preserved.fingerprint)
        if self.task.fingerprint is not None:
            parts.append(self.task.fingerprint)
        return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()
