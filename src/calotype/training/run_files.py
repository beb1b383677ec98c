"""The files that a run writes beside its checkpoints; of several processes rank 0 does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from calotype.config.recipe import Recipe
from calotype.data.source import SourceReport
from calotype.storage.files import write_file
from calotype.storage.json_lines import JsonLines
from calotype.training.resume import Say
from calotype.training.run_folder import LOG_FILES, cut_back_exports
from calotype.training.scalars import Scalars, open_trackers

_WAY_OUT = "the last checkpoint is whole: make room, or mend the disk, and continue with --resume"


@dataclass(frozen=True)
class RunFiles:
    """The files that a run writes beside its checkpoints; by default none.

    Args:
        folder: of the run.
        scalars: the recipe's trackers.
        logs: by file name: one line a step, one a validation, and one for each batch that was
            skipped or passed over.
    """

    folder: Path
    scalars: Scalars = field(default_factory=Scalars)
    logs: Mapping[str, JsonLines] = field(default_factory=dict)

    def write(self, name: Literal["log", "validation", "skipped"], line: dict[str, Any]) -> None:
        """Add a line to a log."""
        if self.logs:
            self.logs[f"{name}.jsonl"].write(line)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        for log in self.logs.values():
            log.sync()

    def cut_back(self, images: int, *, last: int) -> None:
        """Drop what was logged and exported after `images` images, of the `last` that it has.

        What was skipped stays on record.
        """
        for name, log in self.logs.items():
            if name != "skipped.jsonl":
                log.cut_back("images", images)
        if self.logs:
            cut_back_exports(self.folder, images, last=last)

    def close(self) -> None:
        """Close all files."""
        for log in self.logs.values():
            log.close()
        self.scalars.close()


def write_account(folder: Path, report: SourceReport) -> None:
    """List in RUN/data.json what of the data was not used as it is, if anything."""
    found = {kind: keys for kind, keys in vars(report).items() if keys}
    if found:
        lists = {k: v if isinstance(v, dict) else sorted(v) for k, v in found.items()}
        write_file(folder / "data.json", json.dumps(lists, indent=1, default=vars).encode())


def open_files(folder: Path, recipe: Recipe, images: int, *, say: Say) -> RunFiles:
    """Open the files of a run resumed after `images` images."""
    scalars = open_trackers(recipe, folder, images=images, say=say)
    logs = {name: JsonLines(folder / name, way_out=_WAY_OUT) for name in LOG_FILES}
    return RunFiles(folder, scalars, logs)
