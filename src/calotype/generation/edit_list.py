"""Edits one after another, and an edit again from its image: read, checked, made."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calotype.cascade.png import read_recipe
from calotype.config.typed_json import from_dict
from calotype.errors import CalotypeError, UsageError
from calotype.generation.cascade import CascadeGenerator
from calotype.generation.edit import EditGenerator
from calotype.generation.edit_source import (
    Step,
    canvas_of,
    mask_digest,
    read_source,
    with_source_caption,
)
from calotype.generation.generator import Made
from calotype.generation.outputs import holds_image
from calotype.storage.reading import file_sha256, read_regular

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

_MOST_LIST_BYTES = 10_000_000


def edited(
    inner: CascadeGenerator, source: Path, steps: Sequence[Step], out: Path
) -> Iterator[tuple[Path, Generator[Preview, None, list[Made]] | None]]:
    """Edits one after another, each of what the one before made; see `check_steps`.

    Yields:
        The name of each step's image, and what makes it, to be written there before the next is
        asked for; None where it is there already.
    """
    for name, step in zip(_names(out, len(steps)), steps, strict=True):
        step = with_source_caption(step, source)
        canvas = canvas_of(read_source(source), step)
        digest, mask = file_sha256(source), mask_digest(step)
        editor = EditGenerator(inner, canvas, step, digest, mask=mask)
        plan = editor.plan([step.caption], [step.seed])
        there = holds_image(name, editor.recipe(plan, 0), whole=True)
        yield name, None if there else editor.generate(plan)
        source = name


def _names(out: Path, count: int) -> list[Path]:
    """Of the steps' images: OUT-1.png, OUT-2.png, ..., OUT.png."""
    return [*(out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count)), out]


def check_steps(inner: CascadeGenerator, source: Path, steps: Sequence[Step], out: Path) -> None:
    """Plan every step of a list, each on an image of the size that the one before makes.

    Raises:
        UsageError: a step does not fit, its number is named; or its image's name is that of the
            source, or of a file which no edit made.
    """
    for name in _names(out, len(steps)):
        if os.path.lexists(name) and (name.samefile(source) or not _is_edit(name)):
            raise UsageError(f"{name} is there already, and no step of a list; choose another -o")
    pixels = np.zeros_like(read_source(source))
    for number, step in enumerate(steps, 1):
        try:
            canvas = canvas_of(pixels, step)
            EditGenerator(inner, canvas, step, "", mask=None).plan([step.caption], [step.seed])
        except UsageError as error:
            raise UsageError(f"line {number}: {error}") from error
        pixels = np.zeros((*canvas.size, 4), np.uint8)


def _is_edit(path: Path) -> bool:
    try:
        return read_recipe(path).get("kind") == "edit"
    except CalotypeError:
        return False


def read_steps(path: Path) -> list[Step]:
    """A list of edits: a JSON object a line with the fields of `Step`; masks lie beside the list.

    Raises:
        UsageError: it cannot be read, is empty, or a line is wrong; its number is named.
    """
    try:
        lines = read_regular(path, most_bytes=_MOST_LIST_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name a list of edits") from error
    steps = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                step = from_dict(json.loads(line), Step)
            except (ValueError, CalotypeError, RecursionError) as error:
                raise UsageError(f"line {number} of {path}: {error}") from error
            if step.mask is not None:
                step = replace(step, mask=str(path.parent / step.mask))
            steps.append(step)
    if not steps:
        raise UsageError(f"got {path} without a line; expected a JSON object a line")
    return steps


def step_like(recipe: Mapping[str, Any], mask: Path | None) -> Step:
    """The edit that an image's recipe, checked to be of an edit, says; its mask given again.

    Raises:
        CalotypeError: the recipe is damaged.
    """
    try:
        noted = dict(recipe["edit"])
        hole, source = noted.pop("hole_sha256"), recipe["source_sha256"]
        step = from_dict({**noted, "mask": None if mask is None else str(mask)}, Step)
    except (KeyError, TypeError, ValueError, CalotypeError) as error:
        raise CalotypeError(
            f"the recipe of the edit is damaged ({error}); use another image"
        ) from error
    if not isinstance(hole, str) or not isinstance(source, str):
        raise CalotypeError("the recipe of the edit is damaged; use another image")
    return replace(step, caption=recipe["caption"], seed=recipe["seed"])
