"""Trackers: where numbers and grids go beside the run folder's own files.

TensorBoard is written where it is installed. Weights & Biases (`wandb`) and Trackio are used where
the recipe names them. None of them is needed for anything: one that fails is reported once and
tried again later, and training goes on.
"""

from __future__ import annotations

import importlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calotype.config.recipe import Recipe
from calotype.config.typed_json import to_dict
from calotype.errors import MissingExtra
from calotype.storage.files import write_file
from calotype.storage.reading import read_object

TRACKERS_FILE = "trackers.json"
TENSORBOARD_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"  # made by wandb itself
_PROJECT = "calotype"
_PAUSE_SECONDS = 60.0  # before a tracker that failed is tried again
_COUNTS = ("images", "stage", "images_by_level")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tracker:
    """Takes values at a count of images.

    Args:
        log: writes down numbers, and PNG files as images, by name.
        close: writes everything out.
    """

    log: Callable[[dict[str, Any], int], None]
    close: Callable[[], None]


@dataclass(frozen=True)
class Scalars:
    """Several trackers as one, whose failures do not reach the training; by default there is none.

    Args:
        say: shows the user each that fails, once.
        trackers: by name.
        clock: seconds; an argument for tests.
    """

    say: Say = print
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _failed: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, Any], images: int) -> None:
        """Write down the numbers and PNG files among the values, and those in mappings."""
        flat = dict(_flat(values))
        for name, tracker in self.trackers.items():
            if self.clock() >= self._failed.get(name, -math.inf) + _PAUSE_SECONDS:
                self._try(name, tracker.log, flat, images)

    def close(self) -> None:
        """Write everything out, however it went before."""
        for name, tracker in self.trackers.items():
            self._try(name, tracker.close)

    def _try(self, name: str, action: Callable[..., None], *given: Any) -> None:
        try:
            action(*given)
        except Exception as error:
            if name not in self._failed:
                self.say(_failure(name, error))
            self._failed[name] = self.clock()


def open_trackers(recipe: Recipe, folder: Path, *, images: int, say: Say) -> Scalars:
    """The trackers that any stage of the recipe names.

    Args:
        recipe: of the run.
        folder: of the run; the tracked runs' names are kept there, so that a resumed run goes on
            in the same.
        images: at which the run goes on; TensorBoard hides later ones of an earlier attempt.
        say: shows the user what does not work.

    Raises:
        MissingExtra: wandb or trackio is named and not installed. TensorBoard, which is named by
            default, may be missing.
    """
    names = dict.fromkeys(name for stage in recipe.stages for name in stage.trackers)
    packages = {name: _package(name) for name in names if name != "tensorboard"}
    trackers: dict[str, Tracker] = {}
    for name in names:
        try:
            if name == "tensorboard":
                trackers[name] = _tensorboard(folder / TENSORBOARD_FOLDER, images)
            else:
                open_ = _wandb if name == "wandb" else _trackio
                trackers[name] = open_(packages[name], recipe, folder)
        except ImportError:
            say("TensorBoard is not installed: no event files; pip install 'calotype[train]'")
        except Exception as error:
            say(_failure(name, error))
    return Scalars(say, trackers)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(name, name) from error


def _tensorboard(folder: Path, begin: int) -> Tracker:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder), purge_step=begin + 1, flush_secs=30)

    def log(values: dict[str, Any], images: int) -> None:
        for name, value in values.items():
            if isinstance(value, Path):
                with Image.open(value, formats=("PNG",)) as image:
                    pixels = np.asarray(image.convert("RGB"))
                writer.add_image(name, pixels, images, dataformats="HWC")
            else:
                writer.add_scalar(name, value, images)

    return Tracker(log, writer.close)


def _wandb(package: Any, recipe: Recipe, folder: Path) -> Tracker:
    """A run at Weights & Biases; WANDB_MODE=offline keeps it on this machine.

    The axis is the number of images: what a resumed run repeats falls on the same points, which
    an exact resume gives the same values.
    """
    settings: dict[str, Any] = {
        "project": _PROJECT,
        "name": folder.resolve().name,
        "id": _tracked_run("wandb", folder),
        "resume": "allow",
        "dir": str(folder),
        "config": to_dict(recipe),
        "settings": package.Settings(console="off"),  # the progress bar is not for the log
    }
    try:
        run = package.init(**settings)
    except Exception:
        run = package.init(**settings, mode="offline")  # `wandb sync` can send it later
    run.define_metric("images")
    run.define_metric("*", step_metric="images")
    show = package.Image
    return Tracker(lambda v, n: run.log({**_shown(v, show), "images": n}), run.finish)


def _trackio(package: Any, recipe: Recipe, folder: Path) -> Tracker:
    """A run of Trackio, on this machine unless its own settings say otherwise."""
    run = package.init(
        project=_PROJECT,
        name=f"{folder.resolve().name}-{_tracked_run('trackio', folder)}",
        resume="allow",
        config=to_dict(recipe),
    )
    return Tracker(lambda v, n: run.log(_shown(v, package.Image), step=n), run.finish)


def _shown(values: dict[str, Any], show: Callable[[str], Any]) -> dict[str, Any]:
    return {k: show(str(v)) if isinstance(v, Path) else v for k, v in values.items()}


def _tracked_run(tracker: str, folder: Path) -> str:
    """The tracker's name for the run in `folder`: the one it has, or a new one, written down."""
    path = folder / TRACKERS_FILE
    known = read_object(path)
    if not isinstance(known.get(tracker), str):
        known[tracker] = uuid.uuid4().hex[:12]
        write_file(path, json.dumps(known, indent=1).encode())
    return str(known[tracker])


def _failure(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{name} does not work ({reason}); training goes on without it, all numbers are in RUN"


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers and files with their names; those of a mapping as `name/key`."""
    for name, value in values.items():
        if name in _COUNTS:
            continue
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", item) for key, item in _flat(value))
        elif isinstance(value, int | float | Path) and not isinstance(value, bool):
            yield name, value
