"""The files that a run writes beside its checkpoints; of several processes the first one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calotype.config.recipe import Recipe
from calotype.training.log import JsonLines
from calotype.training.resume import Say
from calotype.training.run_folder import LOG_FILES
from calotype.training.scalars import Scalars, open_trackers


class Lines(Protocol):
    """A log, as `JsonLines`."""

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        ...

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        ...

    def cut_back(self, images: int) -> None:
        """Drop all lines after `images` images."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class NoScalars:
    """The trackers of a process that has none."""

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Nothing."""

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class NoLines:
    """The log of a process that writes none."""

    def write(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def cut_back(self, images: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class RunFiles:
    """The files that a run writes beside its checkpoints.

    Args:
        folder: of the run.
        log: one line a step.
        validation: one line a validation.
        skipped: batches that were skipped or passed over.
        scalars: the recipe's trackers.
    """

    folder: Path
    log: Lines
    validation: Lines
    skipped: Lines
    scalars: Scalars

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        for file in (self.log, self.validation, self.skipped):
            file.sync()

    def cut_back(self, images: int) -> None:
        """Drop what was logged after `images` images; what was skipped stays on record."""
        self.log.cut_back(images)
        self.validation.cut_back(images)

    def close(self) -> None:
        """Close all files."""
        for file in (self.log, self.validation, self.skipped):
            file.close()
        self.scalars.close()


@contextmanager
def open_files(
    folder: Path, recipe: Recipe, *, images: int, say: Say, first: bool
) -> Iterator[RunFiles]:
    """Open the files of a run that goes on after `images` images; nothing but for the `first`."""
    if first:
        scalars = open_trackers(recipe, folder, images=images, say=say)
        log, validation, skipped = (JsonLines(folder / name) for name in LOG_FILES)
        files = RunFiles(folder, log, validation, skipped, scalars)
    else:
        files = RunFiles(folder, NoLines(), NoLines(), NoLines(), NoScalars())
    try:
        yield files
    finally:
        files.close()


def stage_runs(folder: Path) -> list[Path]:
    """The runs in a folder whose stages were trained on different processes, by resolution."""
    found = [path.parent for path in folder.glob("*/recipe.json") if path.parent.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))
