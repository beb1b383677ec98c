"""The stages of a cascade on different processes: each trains its own, alone, in a run of its own.

    RUN/64/, RUN/256/   an ordinary run a stage, named by its resolution: lock, log, checkpoints
    RUN/cascade/        all stages joined, once every one of them is finished

A stage is trained on real low-resolution images, or on estimates by a model that exists already
(`lowres_estimates`), and never needs the one beside it, so these processes have nothing to send
each other.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from calotype.cascade.find import CASCADE_FOLDER
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.errors import UsageError
from calotype.launch import launched_place
from calotype.storage.lock import locked
from calotype.tasks.assemble import assemble
from calotype.training import resume
from calotype.training.checkpoint import read_state
from calotype.training.distributed import ALONE, Group
from calotype.training.run import RunOptions, run_recipe
from calotype.training.run_folder import LOCK_NAME, RECIPE_FILE
from calotype.training.task import TaskFactory


def run_stages(
    recipe: Recipe, *, data: Path, out: Path, options: RunOptions, tasks: TaskFactory
) -> int:
    """Train this process's stages of a recipe: every n-th of them, of n processes.

    Args:
        recipe: all stages.
        data: shards or a folder of images.
        out: folder of the runs.
        options: as for `run_recipe`.
        tasks: likewise.

    Returns:
        The exit code: 0 when this process's stages are finished, or after SIGTERM; 130 after
        Ctrl-C.

    Raises:
        UsageError: there are more processes than stages, or `out` holds another kind of run.
        CalotypeError: training cannot go on.
    """
    place = launched_place()
    if not recipe.cascade:
        raise UsageError(f"got --parallel stages for {recipe.name}; expected a recipe of a cascade")
    if place.world_size > len(recipe.stages):
        raise UsageError(
            f"got {place.world_size} processes for {len(recipe.stages)} stages; expected at most "
            "one process a stage"
        )
    if (out / RECIPE_FILE).exists():
        raise UsageError(
            f"{out} holds a run of all stages in turn; go on with it without --parallel stages, "
            "or choose another --out"
        )
    if options.device is None and torch.cuda.is_available():
        options = dataclasses.replace(options, device=Group(place).device("cuda"))
    for config in recipe.cascade[place.rank :: place.world_size]:
        own = out / str(config.stage.resolution)
        part = Recipe(name=f"{recipe.name}-{own.name}", stages=(config,), note=recipe.note)
        code = run_recipe(part, data=data, out=own, options=options, tasks=tasks, group=ALONE)
        if code != 0 or not _is_finished(own):
            return code
    _join_if_finished(recipe, out)
    return 0


def _join_if_finished(recipe: Recipe, out: Path) -> None:
    """Write RUN/cascade, if this is the process that finished last."""
    if not all(_is_finished(out / str(config.stage.resolution)) for config in recipe.cascade):
        return
    try:
        with locked(out / LOCK_NAME):
            assemble([out], out / CASCADE_FOLDER, name=recipe.name, dtype=torch.float32)
    except UsageError:
        if not (out / CASCADE_FOLDER).exists():  # else another process is at it
            raise
        return
    print(f"all stages are finished; sample with --model {out}", flush=True)


def _is_finished(run: Path) -> bool:
    latest = run / "checkpoints" / "latest"
    if not latest.exists():
        return False
    return resume.is_finished(read_state(latest), load_config(run / RECIPE_FILE, Recipe))
