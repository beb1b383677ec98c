"""What a request means: a plan by `generation`, and the finished image that is cut from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from calotype.cascade.find import CascadeFolder
from calotype.cascade.image_files import over_colour
from calotype.cascade.pixels import to_pixels
from calotype.cascade.plan import SamplePlan
from calotype.cascade.sizes import first_upscaler
from calotype.cascade.stage import Stage
from calotype.cascade.tiles import MAX_TILED_SIDE, Tiling
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.generation.cascade import CascadeGenerator, Job, settle
from calotype.generation.generator import Made
from calotype.generation.loaded import Loaded
from calotype.generation.request import Request
from calotype.serving.engine.ahead import Ahead, ahead
from calotype.serving.engine.sizes import Size, SizePlan, cut, plan_size
from calotype.serving.job import JobRequest

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Source:
    """A model, and where the stages of its weights get their answers from.

    Args:
        folder: the model's settings.
        loaded: its weights, all stages up to `MAX_TILED_SIDE`; or their outline.
        change: what is done to every stage; see `Stage.answered`.
    """

    folder: CascadeFolder
    loaded: Loaded
    change: Callable[[Stage], Stage] = lambda stage: stage

    def settle(self, request: JobRequest, *, tiled: bool = False) -> Job:
        """The job that a request means, but for its size."""
        base = self.folder.config.stages[0]
        # Clients send a scale to any.
        told = base.network.text_dim > 0 or request.class_name in base.classes
        asked = Request(
            negative=request.negative_prompt,
            steps=request.steps,
            sampler=request.sampler,
            guidance=request.guidance if told else None,
            variety=request.variety,
            stage_options=[_stage_option(r, s) for r, s in request.stages.items()],
            class_name=request.class_name,
            tiled=tiled,
        )
        return settle(asked, model=self.folder, runtime=self.loaded.runtime)

    def generator(self, job: Job) -> CascadeGenerator:
        """What makes the images of a job."""
        return CascadeGenerator(job, self.loaded.part(job.stop_at, self.change))


@dataclass(frozen=True)
class Given:
    """What an image begins with.

    Args:
        size: height and width.
        pixels: (H, W, 4); None = not sent yet, only its size is known.
        mask: 255 = change here, (H, W); None = everywhere.
        masked: whether there is one.
        sha256: of the source's file.
        mask_sha256: of the mask's.
    """

    size: Size
    pixels: np.ndarray | None = None
    mask: np.ndarray | None = None
    masked: bool = False
    sha256: str = ""
    mask_sha256: str = ""


class Task(Protocol):
    """One image to be made; a request understood."""

    ahead: list[Ahead]
    size: Size

    def generate(self) -> Generator[Preview, None, Made]:
        """The finished image, one preview a step; closing it cancels."""

    def look(self, x_hat: Tensor, *, whole: bool) -> np.ndarray:
        """What the image looks like so far, (h, w, 3 or 4) uint8, of its shape or its size."""

    def recipe(self) -> dict[str, Any]:
        """Of the image."""


def _stage_option(resolution: int, settings: dict[str, Any]) -> str:
    said = ",".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    return f"{resolution}:{said}"


class Sampled:
    """An image of its caption alone, of any size.

    Raises:
        UsageError: something does not fit.
    """

    def __init__(self, source: Source, request: JobRequest, seed: int) -> None:
        self.source, self.request, self.seed = source, request, seed
        job = source.settle(request)
        width, height = (job.stop_at, job.stop_at) if request.size is None else request.size
        self.size = (height, width)
        self.sizes = plan_size(self.size, source.folder.config.stages)
        self.job = replace(job, stop_at=self.sizes.stop_at, size=self.sizes.size)
        self.generator = source.generator(self.job)
        self.plan = self.generator.plan([request.prompt], [seed])
        self.ahead = stages_ahead(self.generator, self.plan)
        for smaller in self.sizes.smaller:
            self.ahead += stages_ahead(*self._again(np.zeros((*smaller, 3), np.uint8)))

    def generate(self) -> Generator[Preview, None, Made]:
        """See `Task`."""
        (made,) = yield from self.generator.generate(self.plan)
        pixels = made.pixels
        for smaller in self.sizes.smaller:
            generator, plan = self._again(cut(pixels, smaller))
            (larger,) = yield from generator.generate(plan)
            pixels = larger.pixels
        return Made(cut(pixels, self.size), self.recipe())

    def _again(self, pixels: np.ndarray) -> tuple[CascadeGenerator, SamplePlan]:
        """The last stage, alone, over an image that is enlarged in tiles."""
        stop_at = self.job.stop_at
        loaded = self.source.loaded.part(stop_at, self.source.change, begin=stop_at)
        generator = CascadeGenerator(self.job, loaded)
        (last,) = loaded.cascade.stages
        options = self.job.options([self.request.prompt], [self.seed])
        options["size"], options["tiling"] = None, Tiling.of_stage(last.config)
        options["sampling"] = {stop_at: self.job.sampling[stop_at]}
        if last.config.class_count == 0:
            options["classes"] = None
        captions, seeds = [self.request.prompt], [self.seed]
        return generator, loaded.cascade.plan_upscale(pixels, captions, seeds=seeds, **options)

    def look(self, x_hat: Tensor, *, whole: bool) -> np.ndarray:
        """See `Task`."""
        return _shaped(x_hat, self.size, whole=whole)

    def recipe(self) -> dict[str, Any]:
        """See `Task`: of what is generated, and the size that is made of it."""
        return {**self.generator.recipe(self.plan, 0), **_resized(self.sizes, self.size)}


class Enlarged:
    """A larger version of a source; arguments as of `open_task`, errors as of `Sampled`."""

    def __init__(self, source: Source, request: JobRequest, seed: int, order: Given) -> None:
        height, width = order.size
        self.order = order
        repeated = source.folder.repeated(MAX_TILED_SIDE).config.stages
        stop_at, self.size = _enlargement(order.size, request, repeated)
        job = replace(source.settle(request, tiled=True), stop_at=stop_at, size=None)
        self.generator = source.generator(job)
        pixels = order.pixels
        image = np.zeros((height, width, 3), np.uint8)
        if pixels is not None:
            image = over_colour(pixels, WHITE)
        self.plan = self.generator.plan_upscale(image, request.prompt, seed)
        self.ahead = stages_ahead(self.generator, self.plan)

    def generate(self) -> Generator[Preview, None, Made]:
        """See `Task`."""
        (made,) = yield from self.generator.generate(self.plan)
        return Made(cut(made.pixels, self.size), self.recipe())

    def look(self, x_hat: Tensor, *, whole: bool) -> np.ndarray:
        """See `Task`."""
        return _shaped(x_hat, self.size, whole=whole)

    def recipe(self) -> dict[str, Any]:
        """See `Task`."""
        recipe = {**self.generator.recipe(self.plan, 0), "kind": "upscale"}
        recipe["source_sha256"] = self.order.sha256
        resized = {} if self.plan.size == self.size else {"size": [self.size[1], self.size[0]]}
        return {**recipe, **resized}


def _enlargement(
    size: Size, request: JobRequest, configs: Sequence[StageConfig]
) -> tuple[int, Size]:
    """The last stage that enlarges a source of a size, and the size of the finished image."""
    height, width = size
    first = first_upscaler(configs, math.sqrt(height * width))
    lowest = configs[first].lowres_resolution
    assert lowest is not None
    factors = {config.resolution: config.resolution / lowest for config in configs[first:]}
    wide, high = (0, 0) if request.size is None else request.size
    if request.size is not None and (wide < width or high < height):
        raise UsageError(
            f"got size {wide}x{high} for a source of {width}x{height}; expected a larger one"
        )
    needed = max(wide / width, high / height)
    reaching = [r for r, factor in factors.items() if factor >= needed]
    most = MAX_TILED_SIDE**2
    if not reaching or height * width * factors[reaching[0]] ** 2 > most:
        raise UsageError(
            f"got a source of {width}x{height} to enlarge to more than "
            f"{MAX_TILED_SIDE}x{MAX_TILED_SIDE}; expected a smaller source or size"
        )
    factor = round(factors[reaching[0]])
    final = (height * factor, width * factor) if request.size is None else (high, wide)
    return reaching[0], final


def stages_ahead(generator: CascadeGenerator, plan: SamplePlan) -> list[Ahead]:
    """What the images of a plan have ahead of them."""
    return ahead([stage.config for stage in generator.cascade.stages], plan)


def _shaped(x_hat: Tensor, size: Size, *, whole: bool) -> np.ndarray:
    """An estimate, (1, 3, h, w), as an image of a shape, or of that size."""
    pixels = to_pixels(x_hat.clamp(-1, 1).float().cpu())[0]
    if whole:
        return cut(pixels, size)
    scale = max(1.0, size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, round(side / scale)) for side in size)
    return cut(pixels, (height, width))


def _resized(sizes: SizePlan, size: Size) -> dict[str, Any]:
    """What recipes say of images that are not of the size that was generated."""
    again = [[width, height] for height, width in sizes.smaller]
    return {
        **({} if sizes.size == size else {"size": [size[1], size[0]]}),
        **({"enlarged_again_from": again} if again else {}),
    }
