"""Which folders are runs, and which may become one: nobody else's files are ever touched."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config, to_dict
from calotype.errors import ConfigError, UsageError
from calotype.storage.files import is_temporary, remove_leftovers, write_file
from calotype.storage.lock import locked
from calotype.text.tokenizer_folder import TOKENIZER_FOLDER
from calotype.training.posthoc_ema import FOLDER as EMA_FOLDER
from calotype.training.scalars import TENSORBOARD_FOLDER as TENSORBOARD
from calotype.training.scalars import TRACKERS_FILE, WANDB_FOLDER

LOCK_NAME = ".lock"
RECIPE_FILE = "recipe.json"
INIT_FILE = "init.txt"
LOG_FILES = ("log.jsonl", "validation.jsonl", "skipped.jsonl")
START_FILES = (RECIPE_FILE, INIT_FILE, TRACKERS_FILE, *LOG_FILES)
LORA_FOLDER = "lora"
EXPORT_FOLDERS = (EMA_FOLDER, LORA_FOLDER)
_AVERAGE = re.compile(r"(\d{1,15})-\d\.\d{3}\.safetensors")
_LORA = re.compile(r"(\d{1,15})-\w+\.safetensors", re.ASCII)
_HARMLESS = (
    "total_images",
    "checkpoint_images",
    "keep_checkpoints",
    "grid_images",
    "validation_images",
    "grid_captions",
    "trackers",
)


@contextmanager
def entered(folder: Path, recipe: Recipe, *, resume: bool) -> Iterator[None]:
    """Make the folder of a run, lock it and check what it holds, for the length of a `with` block.

    Where what is done within fails before the first step, the folder is left as it was.

    Raises:
        UsageError: it cannot be made, is in use, or holds something else.
    """
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the run folder {folder}: {error.strerror}; choose another --out"
        ) from error
    with locked(folder / LOCK_NAME), _undone_if_not_begun(folder, missing):
        if runs := stage_runs(folder):
            raise UsageError(
                f"{folder} holds one run a stage, e.g. {runs[0].name}; go on with --parallel "
                "stages, or choose another --out"
            )
        if resume:
            check_run(folder)
        else:
            clear_start(folder, recipe)
        yield


def stage_runs(folder: Path) -> list[Path]:
    """The runs in a folder whose stages were trained on different processes, by resolution."""
    found = [path.parent for path in folder.glob("*/recipe.json") if path.parent.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def clear_start(folder: Path, recipe: Recipe) -> None:
    """Make a run folder ready for a new run: what one that never took a step left is removed.

    Such a run ended before its first step, e.g. because the data or the text encoder are missing.
    Captions it has embedded stay: they are found by their encoder and text.

    Args:
        folder: of the run.
        recipe: that is asked for.

    Raises:
        UsageError: the folder holds anything else, or a run of another recipe.
    """
    names = {path.name for path in folder.iterdir()} - {LOCK_NAME}
    ours = is_run(folder)
    harmless = {*START_FILES, TENSORBOARD, WANDB_FOLDER, "embeddings", TOKENIZER_FOLDER}
    begun = not ours or not names <= harmless or _logged(folder)
    if names and begun:
        advice = "add --resume to go on with the run in it, or choose" if ours else "choose"
        raise UsageError(f"{folder} is not empty; {advice} another --out")
    # Captions that it has embedded are the mark of a run of ours, begun with other settings.
    bare = "embeddings" not in names
    recorded = load_config(folder / RECIPE_FILE, Recipe) if ours and bare else None
    if recorded is not None and (changed := difference(recorded, _settled(recipe, recorded))):
        raise UsageError(
            f"{folder} holds the {RECIPE_FILE} of another run ({changed}); expected the same "
            "settings, or choose another --out"
        )
    for name in names & {*START_FILES} - {RECIPE_FILE}:  # that is replaced by the new one
        (folder / name).unlink()
    _remove_events(folder)


def _remove_events(folder: Path) -> None:
    """Remove what a tracker wrote of a run that took no step; whatever else lies there stays."""
    place = folder / TENSORBOARD
    for path in place.glob("events.out.tfevents.*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is more, or nothing
        place.rmdir()


@contextmanager
def _undone_if_not_begun(folder: Path, missing: Sequence[Path]) -> Iterator[None]:
    """Where what is done within fails before the first step, leave the folder as it was.

    What has cost time stays, to be gone on with: embedded captions and drafts. So does what lay
    there before.

    Args:
        folder: of the run, which is locked.
        missing: it and its parents, as far as they were made for this run; innermost first.
    """
    held = [path.name for path in folder.iterdir() if path.name != LOCK_NAME]
    try:
        yield
    except BaseException:
        names = {path.name for path in folder.iterdir()}
        own = {*START_FILES, TENSORBOARD, TOKENIZER_FOLDER, LOCK_NAME}
        if not held and names <= own and not _logged(folder):
            for name in names - {TENSORBOARD, TOKENIZER_FOLDER}:
                (folder / name).unlink()
            shutil.rmtree(folder / TOKENIZER_FOLDER, ignore_errors=True)
            _remove_events(folder)
            with suppress(OSError):  # somebody has put something there
                for path in missing:
                    path.rmdir()
        raise


def _logged(folder: Path) -> bool:
    logs = (folder / name for name in LOG_FILES)
    return any(path.is_file() and path.stat().st_size > 0 for path in logs)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it has a recipe.json, and that is one of ours."""
    path = folder / RECIPE_FILE
    try:
        return path.is_file() and bool(load_config(path, Recipe).stages)
    except ConfigError:
        return False


def check_run(folder: Path) -> None:
    """Refuse to resume where there is no run, unless there is nothing at all.

    Raises:
        UsageError: the folder holds something, but no recipe.json of a run.
    """
    names = {path.name for path in folder.iterdir()} - {LOCK_NAME}
    # A run that was killed while it wrote its recipe has that under a temporary name.
    empty = all(is_temporary(name, (RECIPE_FILE, INIT_FILE).__contains__) for name in names)
    if not empty and not is_run(folder):
        raise UsageError(
            f"got --resume for {folder}, which is no run: it has no {RECIPE_FILE} of a recipe; "
            "expected the folder of a run: choose another --out"
        )


def recorded_recipe(folder: Path, recipe: Recipe, *, images: int | None) -> Recipe:
    """The recipe to resume with: what was recorded settles what was not asked for.

    Args:
        folder: of the run.
        recipe: as asked for, options included.
        images: --images; None keeps the recorded lengths.

    Raises:
        UsageError: the run was begun with other settings.
    """
    path = folder / RECIPE_FILE
    if not path.exists():
        return recipe
    recorded = load_config(path, Recipe)
    recipe = _settled(recipe, recorded)
    if len(recorded.stages) == len(recipe.stages) and images is None:
        stages = tuple(
            dataclasses.replace(new, total_images=old.total_images)
            for new, old in zip(recipe.stages, recorded.stages, strict=True)
        )
        recipe = dataclasses.replace(recipe, stages=stages)
    changed = difference(recorded, recipe)
    if changed is not None:
        raise UsageError(
            f"the run in {folder} was begun with other settings ({changed}); resume it with "
            f"{path} as the recipe and the same options, or choose another --out"
        )
    return recipe


def _settled(recipe: Recipe, recorded: Recipe) -> Recipe:
    """The recipe with what it leaves to the data as it was recorded."""
    if len(recorded.stages) != len(recipe.stages):
        return recipe
    pairs = zip(recipe.stages, recorded.stages, strict=True)
    return dataclasses.replace(recipe, stages=tuple(new.settled(old) for new, old in pairs))


def record_recipe(folder: Path, recipe: Recipe, *, init: Path | None) -> None:
    """Write RUN/recipe.json and, where there is one, what the stages start from."""
    write_file(folder / RECIPE_FILE, json.dumps(to_dict(recipe), indent=1).encode())
    if init is not None:
        place = init if str(init) == "default" else init.resolve()
        write_file(folder / INIT_FILE, str(place).encode())


def recorded_init(folder: Path, init: Path | None) -> Path | None:
    """What later stages start from: as asked for, else as recorded when the run was begun."""
    path = folder / INIT_FILE
    if init is not None or not path.is_file():
        return init
    return Path(path.read_text("utf-8"))


def cut_back_exports(run: Path, images: int, *, last: int) -> None:
    """Remove averages and LoRA files of more than `images` images, and half-written ones.

        RUN/ema/<images over all stages>-<length>.safetensors
        RUN/lora/<images over all stages>-<stage>.safetensors

    They are written before the checkpoint of as many images. Files of other names, or of more
    images than the run has, `last`, are not its.
    """
    for folder, own in ((EMA_FOLDER, _AVERAGE), (LORA_FOLDER, _LORA)):
        remove_leftovers(run / folder, own.fullmatch, stale_seconds=0)
        for path in (run / folder).glob("*.safetensors"):
            name = own.fullmatch(path.name)
            if name is not None and images < int(name[1]) <= last:
                path.unlink()


def difference(old: Recipe, new: Recipe) -> str | None:
    """The first setting that decides what is trained, and differs; for people."""
    return _differs(_essence(old), _essence(new), "")


def _essence(recipe: Recipe) -> list[dict[str, Any]]:
    stages = [dataclasses.asdict(stage) for stage in recipe.stages]  # defaults, too, by name
    for stage in stages:
        for name in _HARMLESS:
            stage.pop(name, None)  # not every kind has all of them
        stage["data"].pop("cache_bytes")
    return stages


def _differs(old: Any, new: Any, where: str) -> str | None:
    """The first setting that differs, for people."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        pairs = [(f"{where}.{key}", old[key], new[key]) for key in old]
    elif isinstance(old, list | tuple) and isinstance(new, type(old)) and len(old) == len(new):
        pairs = [(f"{where}.{i}", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else f"stages{where}: was {old}, got {new}"
    return next((d for name, a, b in pairs if (d := _differs(a, b, name)) is not None), None)
