"""Where a run begins: which recipe, which checkpoint, and what is set aside on the way.

A run can be resumed from a checkpoint when all its steps would have been the same under the
recipe that is asked for. A run that is made longer therefore goes back to where its learning rate
began to decay, and from there takes the path that a longer run would have taken from the start.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from calotype.config.recipe import Recipe
from calotype.config.training import TrainConfig
from calotype.config.typed_json import load_config
from calotype.errors import UsageError
from calotype.runtime import Runtime, choose_runtime
from calotype.storage.files import write_error
from calotype.storage.json_lines import cut_back, read_lines
from calotype.training.checkpoint import (
    DAMAGED,
    checkpoints,
    fault,
    point_latest,
    read_state,
    remove_leftovers,
    set_aside,
)
from calotype.training.checkpoint_manager import versions
from calotype.training.learning_rate import decay_start
from calotype.training.preparation import Job
from calotype.training.run_folder import (
    EXPORT_FOLDERS,
    LOG_FILES,
    RECIPE_FILE,
    cut_back_exports,
)
from calotype.training.scalars import TENSORBOARD_FOLDER as TENSORBOARD

_FOLDERS = ("checkpoints", "finished", "grids")
Say = Callable[[str], None]


def with_options(recipe: Recipe, *, images: int | None, seed: int | None) -> Recipe:
    """The recipe with --images (for each stage) and --seed."""
    asked = {"total_images": images, "seed": seed}
    changes: Any = {name: value for name, value in asked.items() if value is not None}
    stages = tuple(dataclasses.replace(stage, **changes) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


def find_start(folder: Path, recipe: Recipe, *, start_over: bool, say: Say) -> Path | None:
    """The checkpoint to resume from, or None; damaged ones and others are set aside.

    Args:
        folder: of the run.
        recipe: to resume with.
        start_over: begin anew where there is none; the old run is moved beside.
        say: shows the user what is set aside.

    Raises:
        UsageError: the recipe is shorter than what was trained already, or no checkpoint can be
            resumed from and `start_over` is not asked for.
        CalotypeError: a checkpoint cannot be read, which is not to say that it is damaged.
    """
    store = folder / "checkpoints"
    remove_leftovers(store)
    passed: list[Path] = []
    for path in checkpoints(store, whole=False):
        problem = fault(path)
        if problem is not None:
            place = set_aside(path, store / DAMAGED)
            say(
                f"checkpoint {path.name} is damaged ({problem}): moved to {place}; going back to "
                "an earlier one"
            )
            continue
        state = read_state(path)
        if usable(state, recipe):
            _go_back(folder, path, recipe, passed)
            if passed:
                say(
                    f"the checkpoints after {path.name} do not fit the run as it is asked for: "
                    f"moved to {folder / 'finished'}"
                )
            return path
        _check_longer(state, recipe)
        passed.append(path)
    if not start_over:
        _check_none_lost(folder, recipe, passed)
    elif (moved := _move_beside(folder)) is not None:
        say(f"moved the old run to {moved}")
    _cut_back(folder, recipe, 0)  # lines and sheets of a run killed before its first checkpoint
    return None


def usable(state: dict[str, Any], recipe: Recipe) -> bool:
    """Whether every step before this checkpoint is one that `recipe` would have taken."""
    number, seen = state["stage"], state["images_seen"]
    if number >= len(recipe.stages):
        return False
    before = zip(state["totals"][:number], recipe.stages[:number], strict=True)
    if any(total != stage.total_images for total, stage in before):
        return False
    stage = recipe.stages[number]
    if state["totals"][number] == stage.total_images:
        return True
    # The length of the run decides when the rate decays, and where the last batch is cut.
    uncut = seen % stage.batch_size == 0
    return bool(not state["decayed"] and uncut and _constant(seen, stage))


def is_finished(state: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a checkpoint is the end of the run."""
    last = len(recipe.stages) - 1
    return bool(
        state
        and state["stage"] == last
        and state["images_seen"] >= recipe.stages[last].total_images
    )


def chosen_runtime(
    asked: Mapping[str, Any], begun: Mapping[str, Any], processes: int, *, say: Say
) -> Runtime:
    """As asked for, else as in the checkpoint, else chosen; the user hears of other bits.

    Args:
        asked: device, dtype and threads; None = not asked for.
        begun: what the checkpoint says; nothing for a new run.
        processes: that train now.
        say: shows it to the user.
    """
    saved, as_many = begun.get("runtime", {}), begun.get("processes", 1) == processes
    known = saved if as_many else {**saved, "threads": None}
    runtime = choose_runtime(
        **{name: known.get(name) if value is None else value for name, value in asked.items()}
    )
    same = saved == runtime.to_dict() and begun.get("versions") == versions()
    if saved and not as_many:
        say("the number of processes has changed: not the same bits from here")
    elif saved and not same:
        say("device, dtype, threads or versions have changed: not the same bits from here")
    return runtime


def changed_data(begun: Mapping[str, Any], job: Job, data: Path) -> str | None:
    """What has changed since the checkpoint was written, if anything, of what is learnt from."""
    if begun["data_fingerprint"] == job.fingerprint:
        return None
    if job.task.fingerprint is not None:
        return f"the data in {data}, or the weights of lowres_estimates.model, have changed"
    return f"the data in {data} has changed since the checkpoint was written"


def _constant(seen: int, stage: TrainConfig) -> bool:
    # The last step began a batch earlier, and with the constant rate.
    start = decay_start(stage.optimizer, stage.total_images)
    return seen <= stage.total_images and seen - stage.batch_size <= start


def _check_longer(state: dict[str, Any], recipe: Recipe) -> None:
    wanted = [stage.total_images for stage in recipe.stages]
    if any(new < old for new, old in zip(wanted, state["totals"], strict=False)):
        raise UsageError(
            f"got --images {wanted[0]}, but the run has been trained towards {state['totals'][0]} "
            "already; expected at least that"
        )


def _recorded(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe that the run was trained by so far; `recipe` where none is recorded."""
    path = folder / RECIPE_FILE
    return load_config(path, Recipe) if path.is_file() else recipe


def _check_none_lost(folder: Path, recipe: Recipe, passed: list[Path]) -> None:
    """Refuse to begin anew where checkpoints were written that cannot be resumed from."""
    damaged = folder / "checkpoints" / DAMAGED
    if passed:
        reason = (
            f"the newest ({passed[0].name}) does not fit; expected the length, batch size and "
            "schedule it was begun with"
        )
    elif damaged.is_dir() and any(damaged.iterdir()):
        reason = "all are damaged; expected a whole one"
    elif _had_checkpoint(folder, _recorded(folder, recipe)):
        reason = "they are gone, though its log says that some were written"
    else:
        return
    raise UsageError(
        f"got --resume for {folder}, where no checkpoint can be resumed from: {reason}: put "
        "one back, or add --start-over to begin anew, which moves the old run beside"
    )


def _had_checkpoint(folder: Path, recipe: Recipe) -> bool:
    """Whether the log goes on beyond the step before which a first checkpoint was on the disk.

    A checkpoint is written while training goes on, and waited for before the next one, and before
    the next stage.
    """
    images = 0
    with suppress(OSError):
        for line in read_lines(folder / LOG_FILES[0]):
            with suppress(ValueError, LookupError, TypeError, OverflowError):
                images = max(images, int(line["images"]))
    first = recipe.stages[0]
    steps = math.ceil(first.checkpoint_images / first.batch_size)
    return images > min(2 * steps * first.batch_size, first.total_images)


def _go_back(folder: Path, path: Path, recipe: Recipe, passed: list[Path]) -> None:
    """Make a checkpoint the latest; those passed over, all of them newer, move to RUN/finished."""
    point_latest(folder / "checkpoints", path.name)
    for newer in passed:
        set_aside(newer, folder / "finished")
    _cut_back(folder, recipe, int(path.name))


def _cut_back(folder: Path, recipe: Recipe, images: int) -> None:
    """Take what was written after `images` images from the logs, sheets and exports."""
    for name in LOG_FILES:
        cut_back(folder / name, "images", images)
    recipes = (recipe, _recorded(folder, recipe))
    last = max(sum(stage.total_images for stage in one.stages) for one in recipes)
    cut_back_exports(folder, images, last=last)
    for grid in (folder / "grids").glob("*.png"):
        if grid.stem.isdecimal() and images < int(grid.stem) <= last:
            grid.unlink()


def _move_beside(folder: Path) -> Path | None:
    """Move a run's files into a dated folder beside it; None if it has none.

    Embedded captions and the draft stay: they are functions of data and settings, and are checked.

    Raises:
        CalotypeError: they cannot be moved.
    """
    names = (*LOG_FILES, *_FOLDERS, *EXPORT_FOLDERS, TENSORBOARD)
    there = [path for name in names if (path := folder / name).exists()]
    if not there:
        return None
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    place = folder.with_name(f"{folder.name}-{stamp}")
    try:
        place.mkdir()
        shutil.copy2(folder / RECIPE_FILE, place / RECIPE_FILE)
        for path in there:
            os.rename(path, place / path.name)
    except OSError as error:
        raise write_error(place, error) from error
    return place
