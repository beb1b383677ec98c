"""One stage and everything it is trained with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from calotype.config.recipe import TrainConfig
from calotype.data.source import ExampleSource
from calotype.training.distributed import Group
from calotype.training.draft_folds import DraftFolds
from calotype.training.estimates import LowresEstimates
from calotype.training.probe import Probe
from calotype.training.state import TrainState
from calotype.training.text import TextLookup


@dataclass(frozen=True)
class StageJob:
    """One stage and what it is trained with.

    Args:
        config: of the stage.
        offset: pictures that earlier stages were trained on.
        source: of examples.
        text: captions -> embeddings, or None.
        unseen: fixed examples to validate on, or None.
        trained: as many that are trained on, or None.
        state: changes.
        preserved: examples of what was known before, mixed into every batch, or None.
        drafts: the draft and its folds, for a base whose rows are conditioned on either, or None.
        estimates: of low-resolution pictures by the stage before, or None.
    """

    config: TrainConfig
    offset: int
    source: ExampleSource
    text: TextLookup | None
    unseen: Probe | None
    trained: Probe | None
    state: TrainState
    preserved: ExampleSource | None = None
    drafts: DraftFolds | None = None
    estimates: LowresEstimates | None = None

    @property
    def group(self) -> Group:
        """The processes that train it."""
        return self.state.parallel.group

    @property
    def fingerprint(self) -> str:
        """Of all data that is trained on, and of the stage that estimates some of it."""
        parts = [self.source.fingerprint]
        if self.preserved is not None:
            parts.append(self.preserved.fingerprint)
        if self.estimates is not None:
            parts.append(self.estimates.sha256)
        return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def images(self) -> int:
        """Pictures over all stages so far."""
        return self.offset + self.state.images_seen

    @property
    def finished(self) -> bool:
        """Whether the stage has seen all its pictures."""
        return self.state.images_seen >= self.config.total_images
