"""How stages were trained: images seen, time, losses, from what their runs wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calotype.config.diffusion import DiffusionTraining
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.errors import CalotypeError
from calotype.training import record
from calotype.training.record import RunRecord, number

_TAIL_FRACTION = 0.05


@dataclass(frozen=True)
class ErrorsByLevel:
    """A validation: error of the estimated image by sigma/alpha, unseen and trained images."""

    images: int
    unseen: Mapping[str, Any]
    trained: Mapping[str, Any]


@dataclass(frozen=True)
class StageRun:
    """How a recipe trained one stage.

    Seconds are of steps and validations, without checkpoints and grids; `loss` is the mean of the
    last 5 % of the run; `skipped` are steps passed over, whose numbers were not finite.
    """

    recipe: str
    config: DiffusionTraining
    images: int
    seconds: float
    loss: float
    skipped: int
    validations: tuple[ErrorsByLevel, ...]


def read_run(folder: Path) -> list[StageRun]:
    """The stages that a run has trained, coarse to fine; empty where there is no such run."""
    try:
        recipe = load_config(folder / "recipe.json", Recipe)
        run = record.read_run(folder)
    except CalotypeError:
        return []
    configs = {config.stage.resolution: config for config in recipe.cascade}
    known = ((size, part) for size, part in run.segments if size in configs)
    return [_stage_run(run, part, recipe.name, configs[size]) for size, part in known]


def read_runs(folders: Sequence[Path]) -> tuple[StageRun, ...]:
    """The stages of several runs, in the order they are named."""
    return tuple(run for folder in folders for run in read_run(folder))


def _stage_run(run: RunRecord, part: slice, recipe: str, config: DiffusionTraining) -> StageRun:
    before = int(run.steps["images"][part.start - 1]) if part.start else 0
    seen, losses = run.steps["images"][part] - before, run.steps["loss"][part]
    tail = losses[(seen >= (1 - _TAIL_FRACTION) * seen[-1]) & np.isfinite(losses)]
    checks = [line for line in run.validations if line.get("stage") == config.stage.resolution]
    return StageRun(
        recipe=recipe,
        config=config,
        images=int(seen[-1]),
        seconds=run.seconds(part) + float(np.nansum([number(c.get("seconds")) for c in checks])),
        loss=float(tail.mean()) if len(tail) else float("nan"),
        skipped=int(np.nan_to_num(run.steps["skipped"][part][-1])),
        validations=tuple(
            ErrorsByLevel(
                int(check["images"]) - before, check.get("validation", {}), check.get("trained", {})
            )
            for check in checks
        ),
    )
