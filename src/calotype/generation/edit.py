"""Edits: a source, what of it is made anew, and a cascade that makes it; see `canvas`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from calotype.cascade.edit import EditSettings, Resampling, plan_edit
from calotype.cascade.pixels import from_pixels
from calotype.cascade.plan import SampleOptions, SamplePlan
from calotype.cascade.results import drain
from calotype.cascade.sizes import size_like
from calotype.config.typed_json import to_dict
from calotype.data.resize import area_resize
from calotype.errors import UsageError
from calotype.generation.best_of import best_of
from calotype.generation.canvas import (
    Canvas,
    Window,
    filled,
    hole_view,
    view,
    window_round,
    windows_outward,
    without_alpha,
)
from calotype.generation.cascade import CascadeGenerator, settle
from calotype.generation.edit_source import (
    MARGIN_STRENGTH,
    Step,
    canvas_of,
    mask_digest,
    read_source,
    with_source_caption,
)
from calotype.generation.generator import ImageGenerator, Made
from calotype.generation.request import Request
from calotype.storage.reading import file_sha256

if TYPE_CHECKING:
    from calotype.cascade.results import Preview


_NOT_OF_EDIT = ("caption", "seed", "mask")  # said elsewhere: a mask by its hole
_OF_INVERSION = ("invert", "refine", "source_caption")  # noted only where one is asked for


@dataclass(frozen=True)
class EditPlan:
    """Images of one canvas, checked: one caption and one seed each.

    Args:
        canvas: where they begin.
        windows: made one after another.
        first: the plan of the first window; those of the others differ in their pixels alone.
    """

    canvas: Canvas
    windows: tuple[Window, ...]
    first: SamplePlan

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.canvas.size

    def rows(self, rows: slice) -> EditPlan:
        """The plan of some of the images."""
        return replace(self, first=self.first.rows(rows))


class EditGenerator:
    """Edits of one canvas by a cascade; a `StagedGenerator` of captions and seeds.

    Args:
        inner: the cascade.
        canvas: the source and its hole.
        edit: what is asked for, but its caption and seed.
        source: the source's SHA-256.
        mask: that of the mask's file; None = there is none.
    """

    def __init__(
        self, inner: CascadeGenerator, canvas: Canvas, edit: Step, source: str, *, mask: str | None
    ) -> None:
        self.inner = inner
        self.canvas = canvas
        self.edit = edit
        self.source = source
        self.mask = mask
        self.group = inner.group
        self.windows = self._windows()

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> EditPlan:
        """What is to be made; nothing is computed."""
        stages = [stage.config for stage in self.inner.cascade.stages]
        sees = [stage.network.extra_channels > 0 or stage.draft is not None for stage in stages]
        if self.edit.blind and not any(sees):
            raise UsageError(
                "got --blind for a model that was not trained to see what is kept; expected one "
                "that was (--model), or no --blind"
            )
        if self.edit.invert:
            self._check_inversion(seeds)
        canvases = [self.canvas] * len(captions)
        first = self._plan(canvases, self.windows[0], captions, seeds)
        return EditPlan(self.canvas, self.windows, first)

    def generate(self, plan: EditPlan) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, one preview a step; closing it cancels."""
        images = yield from self.begin(plan)
        return (yield from self.finish(plan, images))

    def begin(self, plan: EditPlan) -> Generator[Preview, None, Tensor]:
        """The images of the first stage in the first window, (B, 3, h, w) in [-1, 1]."""
        return (yield from self.inner.begin(plan.first))

    def finish(self, plan: EditPlan, images: Tensor) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, whose first stage made `images` in the first window."""
        first = plan.first
        canvases = [plan.canvas] * len(first.seeds)
        made = yield from self.inner.finish(first, images)
        canvases = self._filled(canvases, plan.windows[0], made)
        for window in plan.windows[1:]:
            if canvases[0].hole[window.slices].any():
                following = self._plan(canvases, window, first.captions, first.seeds)
                made = yield from self.inner.generate(following)
                canvases = self._filled(canvases, window, made)
        finished = []
        for row, canvas in enumerate(canvases):
            finished.append(Made(without_alpha(canvas.pixels), self.recipe(plan, row)))
        return finished

    def recipe(self, plan: EditPlan, row: int) -> dict[str, Any]:
        """The recipe of an image of a plan."""
        edit = {"hole_sha256": self.canvas.digest, **to_dict(self.edit)}
        absent = _NOT_OF_EDIT if self.edit.invert else _NOT_OF_EDIT + _OF_INVERSION
        edit = {name: value for name, value in edit.items() if name not in absent}
        recipe = {**self.inner.recipe(plan.first, row), "kind": "edit", "edit": edit}
        height, width = self.canvas.size
        resized = {} if plan.first.size == (height, width) else {"size": [width, height]}
        masked = {} if self.mask is None else {"mask_sha256": self.mask}
        return {**recipe, "source_sha256": self.source, **masked, **resized}

    def _check_inversion(self, seeds: Sequence[int]) -> None:
        noisy = False
        for stage in self.inner.cascade.stages:
            own, asked = stage.config.sampling, self.inner.job.sampling[stage.config.resolution]
            noisy = noisy or asked.aug_level > 0
            if asked.sampler not in (own.sampler, "ddim"):
                raise UsageError(
                    f"got the sampler {asked.sampler!r} with --invert, which samples with ddim, "
                    "the steps that were inverted; expected ddim, or leave it out"
                )
        if len(set(seeds)) > 1 and not noisy:
            raise UsageError(
                f"got {len(set(seeds))} seeds with --invert, which makes the same image of each; "
                "expected one: leave out -n and --best-of, or --invert"
            )

    def _windows(self) -> tuple[Window, ...]:
        canvas, whole = self.canvas, Window(0, 0, *self.canvas.size)
        if canvas.source != whole:
            left, windows = canvas.hole.copy(), []
            for window in windows_outward(canvas, least=self.inner.job.stop_at):
                if left[window.slices].any():
                    windows.append(window)
                    left[window.slices] = False
            return tuple(windows)
        whole_image = self.edit.strength is not None or self.edit.invert
        if not self.edit.crop or (whole_image and bool(canvas.hole.all())):
            return (whole,)
        return (window_round(canvas, self.edit.padding),)

    def _filled(self, canvases: Sequence[Canvas], window: Window, made: list[Made]) -> list[Canvas]:
        return [
            filled(canvas, window, one.pixels, feather=self.edit.feather)
            for canvas, one in zip(canvases, made, strict=True)
        ]

    def _plan(
        self,
        canvases: Sequence[Canvas],
        window: Window,
        captions: Sequence[str],
        seeds: Sequence[int],
    ) -> SamplePlan:
        """What is to be made in a window of each canvas; all have the same hole."""
        job, edit = self.inner.job, self.edit
        stages = [stage.config for stage in self.inner.cascade.stages]
        size = size_like(window.height, window.width, stages)
        # Canvases of several images are the same until the first window is filled in.
        views = {id(canvas): view(canvas, window, size, edit.background) for canvas in canvases}
        image = from_pixels(np.stack([views[id(canvas)] for canvas in canvases]))
        options = self.inner.options(captions, seeds)
        if edit.vary is not None:
            return self._plan_again(image, captions, seeds, options)
        options["size"] = size
        hole = hole_view(canvases[0], window, size, feather=edit.feather)
        keep = None if bool(hole.all()) else torch.from_numpy(~hole)[None, None]
        resampling = None if edit.resampling is None else Resampling(*edit.resampling)
        strength = edit.strength
        if strength is None and edit.extend is not None and not edit.invert:
            strength = MARGIN_STRENGTH
        settings = EditSettings(
            mask=keep,
            strength=strength,
            resampling=resampling,
            blind=edit.blind,
            invert=edit.invert,
            refine=edit.refine,
            source_caption=edit.source_caption or "",
        )
        if edit.invert:
            asked = job.sampling
            options["sampling"] = {
                stage.resolution: replace(asked[stage.resolution], sampler="ddim")
                for stage in stages
            }
        return plan_edit(self.inner.cascade, image, settings, captions, seeds=seeds, **options)

    def _plan_again(
        self, image: Tensor, captions: Sequence[str], seeds: Sequence[int], options: SampleOptions
    ) -> SamplePlan:
        """Enlarge the image's own small version, noised (Saharia et al. 2022, section 2.5)."""
        base, *finer = (stage.config for stage in self.inner.cascade.stages)
        if not finer:
            raise UsageError(
                "got --vary for a base alone; expected a --size that a super-resolution stage makes"
            )
        assert self.edit.vary is not None
        sampling = dict(self.inner.job.sampling)
        first = finer[0].resolution
        sampling[first] = replace(sampling[first], aug_level=self.edit.vary)
        shrink = finer[-1].resolution // base.resolution
        small = area_resize(image, (image.shape[2] // shrink, image.shape[3] // shrink))
        options["sampling"] = {stage.resolution: sampling[stage.resolution] for stage in finer}
        options["size"] = None
        return self.inner.cascade.plan_upscale(small, captions, seeds=seeds, **options)


def open_editor(request: Request, source: Path, step: Step) -> ImageGenerator[Any]:
    """Load what edits an image as asked for; the step's caption and seed are the caller's.

    Raises:
        UsageError: files cannot be read, or do not fit each other or the model.
        CalotypeError: files are missing or damaged.
    """
    if step.invert and request.sampler not in (None, "ddim"):
        raise UsageError(
            f"got --sampler {request.sampler} with --invert; expected ddim, or leave it out"
        )
    canvas, digest = canvas_of(read_source(source), step), file_sha256(source)
    step = with_source_caption(step, source)
    if request.like is not None:
        noted = (request.like["source_sha256"], request.like["edit"]["hole_sha256"])
        for what, own, was in zip(("source", "hole"), (digest, canvas.digest), noted, strict=True):
            if own != was:
                raise UsageError(
                    f"got another {what} ({own:.12}) than the image was made with ({was:.12}); "
                    "expected the same image and the same --mask"
                )
    inner, mask = CascadeGenerator(settle(request)), mask_digest(step)
    editor = EditGenerator(inner, canvas, step, digest, mask=mask)
    return best_of(editor, request.best_of, request.ranking_clip)


def edit_image(
    source: Path | str, step: Step, *, count: int = 1, request: Request | None = None
) -> list[Made]:
    """Edit an image as `calotype edit` does: any edit, in one function.

    Args:
        source: an image file.
        step: what is changed and how, with its caption and the first seed.
        count: images, with seeds s, s + 1, ...
        request: the model and how it samples; None = the embedded cascade's own settings.

    Returns:
        Images, (H, W, 3 or 4) uint8, with their recipes; `write_png` writes both.

    Raises:
        UsageError: something does not fit; nothing has been computed then.
        CalotypeError: files are missing or damaged.
    """
    request = Request() if request is None else request
    editor = open_editor(request, Path(source), step)
    seeds = [step.seed + number * request.seeds_each for number in range(count)]
    return drain(editor.generate(editor.plan([step.caption] * count, seeds)))
