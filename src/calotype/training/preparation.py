"""What the tasks of a run share while they are prepared, and what comes of it: a `Job`."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from calotype.data.account import check_account, take_account
from calotype.data.listing import STORE_NAME
from calotype.data.source import ExampleSource
from calotype.progress import Display
from calotype.runtime import Runtime
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore
from calotype.training.distributed import ALONE, Group
from calotype.training.signals import Stopped, StopRequest
from calotype.training.task import AnyTask


@dataclass
class Preparation:
    """What the stages of a run share.

    Args:
        data: folder of the data.
        out: folder of the run.
        runtime: where and how it is computed.
        quiet: no progress.
        stop: breaks preparations off.
        group: the processes that train; rank 0 embeds captions and trains the draft.
        missing_captions: train although the captions are mostly lost.
        stores: embedded captions by text encoder.
        reported: whether the user has been shown what the data are.
    """

    data: Path
    out: Path
    runtime: Runtime
    quiet: bool
    stop: StopRequest
    group: Group = ALONE
    missing_captions: bool = False
    stores: dict[str, CaptionStore] = field(default_factory=dict)
    reported: bool = False

    @property
    def beside(self) -> Path:
        """Where `calotype data embed` puts embedded captions."""
        return self.data / STORE_NAME

    def on_rank_zero(self, work: Callable[[], None]) -> None:
        """Let rank 0 work while the others wait.

        Raises:
            Stopped: on all of them, if somebody has asked for the end.
        """
        if self.group.is_rank_zero:
            with suppress(Stopped):  # raised on all, below
                work()
        self.stop.agree()
        if self.stop:
            raise Stopped

    def progress(self, title: str) -> Callable[[int, int], None]:
        """What shows (done, total) of a preparation, and raises `Stopped` where that is asked."""
        display = Display(title, quiet=self.quiet, seconds=5.0)

        def show(done: int, total: int) -> None:
            display.update(done, total)
            self.stop.check()

        return show

    def report_data(self, source: ExampleSource, *, captioned: bool) -> None:
        """Say once a run what the data are, before anything is made of them.

        Args:
            source: of the first stage.
            captioned: the stage is trained on captions.

        Raises:
            UsageError: the captions are mostly lost, and nobody said that this is well.
        """
        if self.reported:
            return
        self.reported = True
        account = take_account(source)
        if captioned and not self.missing_captions:
            check_account(account)
        if self.group.is_rank_zero:
            print(f"calotype: data: {account}", file=sys.stderr, flush=True)

    def embeddings(self, spec: str) -> Path:
        """Folder of embedded captions: beside the data if its encoder fits, else in the run."""
        fits = any(card.spec == spec for card in store_cards(self.beside))
        return self.beside if fits and os.access(self.beside, os.W_OK) else self.out / STORE_NAME


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
        kept = None if self.preserved is None else self.preserved.fingerprint
        each = (self.source.fingerprint, kept, self.task.fingerprint)
        parts = [part for part in each if part is not None]
        return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()
