"""Edits of a source: image-to-image, in-painting and variations, by `EditGenerator`."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from calotype.cascade.pixels import to_pixels
from calotype.cascade.plan import SamplePlan
from calotype.cascade.sizes import size_like
from calotype.cascade.stage_edit import StageEdit
from calotype.errors import UsageError
from calotype.generation.canvas import Canvas, Window, filled, masked, window_round, without_alpha
from calotype.generation.edit import EditGenerator
from calotype.generation.edit_source import Step
from calotype.generation.generator import Made
from calotype.serving.engine.ahead import Ahead, ahead
from calotype.serving.engine.sizes import Size, cut
from calotype.serving.engine.tasks import Given, Source, stages_ahead
from calotype.serving.job import JobRequest

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

_ABOUT = 0.9  # of a window's side: a stage that makes so many pixels is enough for it


def edit_step(request: JobRequest, seed: int, *, whole: bool) -> Step:
    """The edit that a request means; `whole`: all of the image changes."""
    mask = None if whole else "mask"
    return Step(
        caption=request.prompt,
        seed=seed,
        mask=mask,
        strength=None if request.kind == "vary" else request.strength,
        vary=request.vary if request.kind == "vary" else None,
        crop=request.crop,
        padding=request.padding,
        feather=0 if whole else request.mask_blur,
    )


def check_edit(request: JobRequest, given: Given) -> None:
    """Refuse what no edit takes.

    Raises:
        UsageError: a mask is missing or too much, or the size is another than the source's.
    """
    height, width = given.size
    if request.size is not None and request.size != (width, height):
        raise UsageError(
            f"got size {request.size[0]}x{request.size[1]} for a source of {width}x{height}; "
            "expected none: edits keep their source's size"
        )
    if request.kind == "inpaint" and not given.masked:
        raise UsageError("got inpaint without a mask; expected one, or image_to_image")
    if request.kind == "vary" and given.masked:
        raise UsageError("got vary with a mask; it makes all of the image anew: leave out one")


def _stop_at(source: Source, request: JobRequest, side: float) -> int:
    """The smallest stage that makes as many pixels as a window of such a side has."""
    configs = source.folder.config.stages
    if configs[0].lowres_resolution is not None:
        raise UsageError(f"the model {source.folder.config.name!r} only enlarges; expected upscale")
    possible = [config.resolution for config in configs[1 if request.kind == "vary" else 0 :]]
    if not possible:
        raise UsageError("got vary for a base alone; expected a model with another stage")
    return next((r for r in possible if r >= _ABOUT * side), possible[-1])


class OutlinedEdit:
    """An edit before its source is there: what it will take, about; only to be looked at."""

    def __init__(self, source: Source, request: JobRequest, seed: int, given: Given) -> None:
        height, width = self.size = given.size
        step = edit_step(request, seed, whole=not given.masked)
        job = source.settle(request)
        job = replace(job, stop_at=_stop_at(source, request, math.sqrt(height * width)))
        configs = [c for c in source.folder.config.stages if c.resolution <= job.stop_at]
        job = replace(job, size=size_like(height, width, configs))
        plan = source.generator(job).plan([request.prompt], [seed])
        if step.vary is not None:
            plan = replace(plan, stages=plan.stages[1:])
        if step.strength is not None and step.strength < 1:
            plan = _started(plan, step.strength)
        self.ahead = ahead(configs, plan)


def _started(plan: SamplePlan, strength: float) -> SamplePlan:
    blank = Tensor(0)
    stages = (replace(s, edit=StageEdit(blank, strength)) for s in plan.stages)
    return replace(plan, stages=tuple(stages))


class Edited:
    """An edit of a source; a `Task`.

    Raises:
        UsageError: something does not fit.
    """

    def __init__(self, source: Source, request: JobRequest, seed: int, given: Given) -> None:
        assert given.pixels is not None
        self.size: Size = given.size
        self.given = given
        hole = np.ones(given.size, bool) if given.mask is None else given.mask >= 128
        canvas = masked(given.pixels, hole)
        step = edit_step(request, seed, whole=given.mask is None)
        window = _window(canvas, step)
        side = math.sqrt(window.height * window.width)
        job = replace(source.settle(request), stop_at=_stop_at(source, request, side), size=None)
        mask = None if given.mask is None else given.mask_sha256
        self.generator = EditGenerator(source.generator(job), canvas, step, given.sha256, mask=mask)
        self.plan = self.generator.plan([request.prompt], [seed])
        self.ahead: list[Ahead] = stages_ahead(self.generator.inner, self.plan.first)
        self._small: tuple[Canvas, Window] | None = None

    def generate(self) -> Generator[Preview, None, Made]:
        """See `Task`."""
        (made,) = yield from self.generator.generate(self.plan)
        return made

    def look(self, x_hat: Tensor, *, whole: bool) -> np.ndarray:
        """See `Task`: what is made, within what is kept."""
        made = to_pixels(x_hat.clamp(-1, 1).float().cpu())[0]
        window = self.generator.windows[0]
        if whole:
            feather = self.generator.edit.feather
            return without_alpha(
                filled(self.generator.canvas, window, made, feather=feather).pixels
            )
        if self._small is None:
            self._small = _shrunk(self.generator.canvas, window)
        return without_alpha(filled(*self._small, made, feather=0).pixels)

    def recipe(self) -> dict[str, Any]:
        """See `Task`."""
        return self.generator.recipe(self.plan, 0)


def _window(canvas: Canvas, step: Step) -> Window:
    """The window that `EditGenerator` chooses."""
    if not step.crop or (step.strength is not None and bool(canvas.hole.all())):
        return canvas.source
    return window_round(canvas, step.padding)


def _shrunk(canvas: Canvas, window: Window, most: int = 1024) -> tuple[Canvas, Window]:
    """A canvas and its window in at most so many pixels a side, to be looked at."""
    height, width = canvas.size
    scale = min(1.0, most / max(height, width))
    if scale == 1:
        return canvas, window
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (
        min(int(start * scale), side - 1)
        for start, side in zip((window.top, window.left), size, strict=True)
    )
    high, wide = (
        min(max(1, round(length * scale)), side - start)
        for length, side, start in zip(
            (window.height, window.width), size, (top, left), strict=True
        )
    )
    hole = cut(canvas.hole.astype(np.uint8) * 255, size) >= 128
    pixels = cut(canvas.pixels, size)
    whole = Window(0, 0, *size)
    return Canvas(pixels, hole, whole), Window(top, left, high, wide)


def open_edit(source: Source, request: JobRequest, seed: int, given: Given) -> Edited:
    """An edit, checked."""
    check_edit(request, given)
    return Edited(source, request, seed, given)
