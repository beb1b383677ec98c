"""Trackers: where numbers and grids go beside the run folder's own files.

TensorBoard is written where it is installed. Weights & Biases (`wandb`) and Trackio are used where
the recipe names them. None of them is needed for anything: one that fails is told of once and
tried again later, and training goes on.
"""

from __future__ import annotations

import importlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from calotype.config.recipe import Recipe
from calotype.config.typed_json import to_dict
from calotype.errors import MissingExtra
from calotype.storage.files import write_file

TRACKERS_FILE = "trackers.json"
TENSORBOARD_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"  # made by wandb itself
_PROJECT = "calotype"
_PAUSE_SECONDS = 60.0  # before a tracker that failed is tried again
_COUNTS = ("images", "stage", "images_by_level")
Say = Callable[[str], None]


class Scalars(Protocol):
    """Takes named numbers, and images, at a count of images."""

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write down the numbers among the values, and those in mappings among them."""
        ...

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Show a PNG."""
        ...

    def close(self) -> None:
        """Write everything out."""
        ...


class TensorBoardScalars:
    """Writes event files.

    Args:
        folder: where.
        images: events after this count of images, of an earlier attempt, are hidden.
    """

    def __init__(self, folder: Path, *, images: int) -> None:
        """Open; raises ImportError where TensorBoard is not installed."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=images + 1, flush_secs=30)

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write down the numbers among the values, and those in mappings among them."""
        for name, value in _flat(numbers):
            self._writer.add_scalar(name, value, images)

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Show a PNG."""
        import numpy as np
        from PIL import Image

        with Image.open(path, formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, images, dataformats="HWC")

    def close(self) -> None:
        """Write everything out."""
        self._writer.close()


class WandbScalars:
    """A run at Weights & Biases; WANDB_MODE=offline keeps it on this machine.

    The axis is the number of images: what a resumed run repeats falls on the same points, which
    an exact resume gives the same values.

    Args:
        run: that `wandb.init` gave.
        package: the module `wandb`.
    """

    def __init__(self, run: Any, package: Any) -> None:
        """Make the number of images the axis."""
        self._run = run
        self._package = package
        run.define_metric("images")
        run.define_metric("*", step_metric="images")

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write down the numbers among the values, and those in mappings among them."""
        self._run.log({**dict(_flat(numbers)), "images": images})

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Show a PNG."""
        self._run.log({name: self._package.Image(str(path)), "images": images})

    def close(self) -> None:
        """Write everything out."""
        self._run.finish()


class TrackioScalars:
    """A run of Trackio, on this machine unless its own settings say otherwise.

    Args:
        run: that `trackio.init` gave.
        package: the module `trackio`.
    """

    def __init__(self, run: Any, package: Any) -> None:
        """Keep both."""
        self._run = run
        self._package = package

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write down the numbers among the values, and those in mappings among them."""
        self._run.log(dict(_flat(numbers)), step=images)

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Show a PNG."""
        self._run.log({name: self._package.Image(str(path))}, step=images)

    def close(self) -> None:
        """Write everything out."""
        self._run.finish()


class Tolerant:
    """Passes everything on, and lets no failure of a tracker reach the training.

    Args:
        name: of the tracker.
        scalars: the tracker.
        say: tells the user, once.
        clock: seconds; an argument for tests.
    """

    def __init__(
        self, name: str, scalars: Scalars, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep the parts."""
        self._name = name
        self._scalars = scalars
        self._say = say
        self._clock = clock
        self._told = False
        self._rests_until = -float("inf")

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Pass on, unless it failed a moment ago."""
        self._try(lambda: self._scalars.add(numbers, images))

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Pass on, unless it failed a moment ago."""
        self._try(lambda: self._scalars.add_image(name, path, images))

    def close(self) -> None:
        """Write everything out, however it went before."""
        self._rests_until = -float("inf")
        self._try(self._scalars.close)

    def _try(self, action: Callable[[], None]) -> None:
        if self._clock() < self._rests_until:
            return
        try:
            action()
        except Exception as error:
            self._rests_until = self._clock() + _PAUSE_SECONDS
            if not self._told:
                self._told = True
                self._say(_failed(self._name, error))


class AllScalars:
    """Several trackers as one; with none, nothing is written.

    Args:
        members: the trackers.
    """

    def __init__(self, members: tuple[Scalars, ...]) -> None:
        """Keep them."""
        self.members = members

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Pass on to all."""
        for member in self.members:
            member.add(numbers, images)

    def add_image(self, name: str, path: Path, images: int) -> None:
        """Pass on to all."""
        for member in self.members:
            member.add_image(name, path, images)

    def close(self) -> None:
        """Close all."""
        for member in self.members:
            member.close()


def open_trackers(recipe: Recipe, folder: Path, *, images: int, say: Say) -> AllScalars:
    """The trackers that any stage of the recipe names.

    Args:
        recipe: of the run.
        folder: of the run; the tracked runs' names are kept there, so that a resumed run goes on
            in the same.
        images: at which the run goes on.
        say: tells the user what does not work.

    Raises:
        MissingExtra: wandb or trackio is named and not installed. TensorBoard, which is named by
            default, may be missing.
    """
    names = tuple(dict.fromkeys(name for stage in recipe.stages for name in stage.trackers))
    packages = {name: _package(name) for name in names if name in _OPENERS}
    members: list[Scalars] = []
    for name in names:
        try:
            if name == "tensorboard":
                scalars: Scalars = TensorBoardScalars(folder / TENSORBOARD_FOLDER, images=images)
            else:
                scalars = _OPENERS[name](packages[name], recipe, folder)
        except ImportError:
            say("TensorBoard is not installed: no event files; pip install 'calotype[train]'")
        except Exception as error:
            say(_failed(name, error))
        else:
            members.append(Tolerant(name, scalars, say))
    return AllScalars(tuple(members))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(name, name) from error


def _open_wandb(package: Any, recipe: Recipe, folder: Path) -> Scalars:
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
    return WandbScalars(run, package)


def _open_trackio(package: Any, recipe: Recipe, folder: Path) -> Scalars:
    run = package.init(
        project=_PROJECT,
        name=f"{folder.resolve().name}-{_tracked_run('trackio', folder)}",
        resume="allow",
        config=to_dict(recipe),
    )
    return TrackioScalars(run, package)


_OPENERS: dict[str, Callable[[Any, Recipe, Path], Scalars]] = {
    "wandb": _open_wandb,
    "trackio": _open_trackio,
}


def _tracked_run(tracker: str, folder: Path) -> str:
    """The tracker's name for the run in `folder`: the one it has, or a new one, written down."""
    path = folder / TRACKERS_FILE
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or not isinstance(known.get(tracker), str):
        known = {**(known if isinstance(known, dict) else {}), tracker: uuid.uuid4().hex[:12]}
        write_file(path, json.dumps(known, indent=1).encode())
    return str(known[tracker])


def _failed(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{name} does not work ({reason}); training goes on without it, all numbers are in RUN"


def _flat(numbers: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers with their names; those of a mapping as `name/key`."""
    for name, value in numbers.items():
        if name in _COUNTS:
            continue
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", item) for key, item in _flat(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
