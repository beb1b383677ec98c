"""What training runs wrote down: images seen, time, losses; read from their folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.config.recipe import Recipe, TrainConfig
from calotype.config.typed_json import load_config
from calotype.errors import CalotypeError

_TAIL_SHARE = 0.05


@dataclass(frozen=True)
class ErrorsByLevel:
    """A validation: error of the estimated image by sigma/alpha, unseen and trained images."""

    images: int
    unseen: dict[str, float]
    trained: dict[str, float]


@dataclass(frozen=True)
class StageRun:
    """How one stage was trained.

    Args:
        recipe: name of the recipe.
        config: its settings for this stage.
        images: images seen by this stage.
        seconds: of its steps and validations; checkpoints and grids are not counted.
        loss: mean of the last 5 % of the run.
        skipped: steps passed over because numbers were not finite.
        validations: in order.
    """

    recipe: str
    config: TrainConfig
    images: int
    seconds: float
    loss: float
    skipped: int
    validations: tuple[ErrorsByLevel, ...]


def read_run(folder: Path) -> list[StageRun]:
    """The stages that a run has trained, coarse to fine; empty where there is no such run."""
    try:
        recipe = load_config(folder / "recipe.json", Recipe)
    except CalotypeError:
        return []
    steps = _by_stage(folder / "log.jsonl")
    validations = _by_stage(folder / "validation.jsonl")
    runs, before = [], 0
    for config in recipe.stages:
        resolution = config.stage.resolution
        lines = steps.get(resolution, [])
        if lines:
            checks = validations.get(resolution, [])
            runs.append(_stage_run(recipe.name, config, lines, checks=checks, before=before))
            before = int(lines[-1]["images"])
    return runs


def read_runs(folders: Sequence[Path]) -> tuple[StageRun, ...]:
    """The stages of several runs, in the order they are named."""
    return tuple(run for folder in folders for run in read_run(folder))


def _stage_run(
    name: str,
    config: TrainConfig,
    lines: list[dict[str, Any]],
    *,
    checks: list[dict[str, Any]],
    before: int,
) -> StageRun:
    seconds, last = 0.0, before
    for line in lines:
        rate = line.get("images_per_second")
        if rate:
            seconds += (line["images"] - last) / rate
        last = int(line["images"])
    seconds += sum(float(check.get("seconds", 0.0)) for check in checks)
    images = last - before
    tail = [
        float(line["loss"])
        for line in lines
        if line.get("loss") is not None and line["images"] - before >= (1 - _TAIL_SHARE) * images
    ]
    return StageRun(
        recipe=name,
        config=config,
        images=images,
        seconds=seconds,
        loss=sum(tail) / len(tail) if tail else float("nan"),
        skipped=int(lines[-1].get("skipped", 0)),
        validations=tuple(
            ErrorsByLevel(
                int(check["images"]) - before,
                dict(check.get("validation", {})),
                dict(check.get("trained", {})),
            )
            for check in checks
        ),
    )


def _by_stage(path: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for line in _lines(path):
        found.setdefault(int(line["stage"]), []).append(line)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # the last line of a run that is being written
        if isinstance(value, dict) and "stage" in value and "images" in value:
            yield value
