"""Reading what a run wrote down: columns of numbers, however long the log is.

A run that is still going may have a last line that is not finished; such lines are passed over.
Nothing here trusts the folder: what is missing or of the wrong kind is left out.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.diffusion.noise_marks import BINS
from calotype.errors import UsageError
from calotype.storage.json_lines import read_lines
from calotype.storage.reading import read_object
from calotype.training.checkpoint import checkpoints, read_state

Column = NDArray[np.float64]
NUMBERS = (
    "images", "stage", "loss", "grad_norm", "lr", "skipped", "rewinds", "images_per_second",
    "data_wait", "flops_per_second", "flops_share_of_peak",
)  # fmt: skip
_MAPPINGS = ("loss_by_level", "images_by_level")
_MOST_JSON_BYTES = 64_000_000
_NAN = float("nan")


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds.

    Args:
        folder: of the run.
        steps: one number a step by column, nan where a line has none; the columns are `NUMBERS`
            and `loss_by_level/BIN`, `images_by_level/BIN` for each bin.
        recipe: as JSON data; empty where it cannot be read.
        state: JSON data of the newest checkpoint; empty where there is none.
        validations: lines of `validation.jsonl`.
        skipped: lines of `skipped.jsonl`.
        grids: sheets of samples by images seen, in that order.
    """

    folder: Path
    steps: dict[str, Column]
    recipe: dict[str, Any]
    state: dict[str, Any]
    validations: tuple[dict[str, Any], ...]
    skipped: tuple[dict[str, Any], ...]
    grids: dict[int, Path]

    @property
    def images(self) -> int:
        """Images seen, over all stages."""
        return int(self.steps["images"][-1])

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The recipe's stages, as far as they can be read."""
        stages = self.recipe.get("stages")
        return [s for s in stages if isinstance(s, dict)] if isinstance(stages, list) else []

    @property
    def total_images(self) -> int | None:
        """Length of the run over all stages, or None where the recipe does not say."""
        totals = [stage.get("total_images") for stage in self.stages]
        known = [total for total in totals if isinstance(total, int)]
        return sum(known) if totals and len(known) == len(totals) else None

    @property
    def segments(self) -> list[tuple[int, slice]]:
        """Resolution and steps of each stage, in the order they were trained."""
        stage = np.nan_to_num(self.steps["stage"])  # a line without one: 0
        starts = [0, *(np.flatnonzero(stage[1:] != stage[:-1]) + 1), len(stage)]
        return [
            (int(stage[start]), slice(int(start), int(end)))
            for start, end in itertools.pairwise(starts)
        ]

    def seconds(self, part: slice = slice(None)) -> float:
        """Time in these steps, without validations, checkpoints and grids."""
        with np.errstate(divide="ignore", invalid="ignore"):
            images = np.diff(self.steps["images"], prepend=0.0)
            seconds = (images / self.steps["images_per_second"])[part]
        return float(seconds[np.isfinite(seconds)].sum())


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        UsageError: it is no run folder, or nothing was trained in it yet.
    """
    log = folder / "log.jsonl"
    if not log.is_file():
        runs = sorted(path.parent.name for path in folder.glob("*/log.jsonl"))
        hint = f"; it holds the runs {', '.join(runs)}: name one of them" if runs else ""
        raise UsageError(
            f"got {folder}, which holds no log.jsonl; expected the folder of a training run{hint}"
        )
    steps = _read_steps(log)
    if len(steps["images"]) == 0:
        raise UsageError(f"the log in {folder} holds no step yet; wait for the first, or train")
    return RunRecord(
        folder=folder,
        steps=steps,
        recipe=read_object(folder / "recipe.json", most_bytes=_MOST_JSON_BYTES),
        state=_newest_state(folder / "checkpoints"),
        validations=tuple(_lines(folder / "validation.jsonl")),
        skipped=tuple(_lines(folder / "skipped.jsonl")),
        grids=_grids(folder / "grids"),
    )


def number(value: Any) -> float:
    """A number of a log line; nan for everything else, infinities included."""
    try:
        found = float(value) if isinstance(value, int | float) else _NAN
    except OverflowError:  # an integer beyond all floats
        return _NAN
    return found if math.isfinite(found) else _NAN


def _read_steps(path: Path) -> dict[str, Column]:
    columns = {(name, ""): array("d") for name in NUMBERS}
    # Most of the memory, and looked at from afar: single precision will do.
    columns |= {(name, level): array("f") for name in _MAPPINGS for level in BINS}
    for line in _lines(path):
        for (name, level), column in columns.items():
            value = line.get(name)
            if level:
                value = value.get(level) if isinstance(value, dict) else None
            column.append(number(value))
    return {"/".join(filter(None, key)): np.asarray(column) for key, column in columns.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The finished lines of a log that say at how many images they were written."""
    if not path.is_file():
        return
    for line in read_lines(path):
        if np.isfinite(number(line.get("images"))):
            yield line


def _newest_state(folder: Path) -> dict[str, Any]:
    for path in checkpoints(folder):
        try:
            return read_state(path)
        except (OSError, ValueError):  # pruned at this moment
            continue
    return {}


def _grids(folder: Path) -> dict[int, Path]:
    found = {int(p.stem): p for p in folder.glob("*.png") if p.stem.isdecimal()}
    return dict(sorted(found.items()))
