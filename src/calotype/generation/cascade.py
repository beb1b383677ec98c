"""Images by a cascade: what was asked for, settled once, and what makes it, in any process."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.find import CascadeFolder, open_cascade
from calotype.cascade.pixels import Images, as_images, to_pixels
from calotype.cascade.plan import SampleOptions, SamplePlan
from calotype.cascade.recipe import class_note, image_recipe, recipe_sampling, weights_id
from calotype.cascade.sizes import first_upscaler
from calotype.cascade.tiles import MAX_TILED_SIDE, Tiling
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.errors import UsageError
from calotype.generation.best_of import best_of, with_best_of
from calotype.generation.classes import settle_class
from calotype.generation.generator import ImageGenerator, Made
from calotype.generation.guides import GuideJob, chosen_class, settle_guides
from calotype.generation.loaded import Loaded, load, outline
from calotype.generation.loras import check_like
from calotype.generation.request import Request, requested_sampling, requested_size
from calotype.launch import launched_place
from calotype.runtime import DTYPES, Runtime, choose_runtime, usable_threads
from calotype.vision.clip import find_clip, read_clip_file

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

# Finished images held in memory at a time, in pixels of the last stage.
_GROUP_PIXELS = 4 * 1024 * 1024
_GROUP_IMAGES = 64


@dataclass(frozen=True)
class Job:
    """All that decides images but their captions and seeds; can be sent to other processes.

    Args:
        model: the cascade, its settings read.
        stop_at: resolution of the last stage that samples.
        size: height and width; None = square.
        sampling: settings by resolution, of all stages of the model.
        negative: negative caption.
        loras: texts FILE[:WEIGHT].
        merge_lora: add them to the weights, or compute them beside.
        runtime: how to compute.
        stage_dtypes: number types by resolution where they differ from what `runtime` gives.
        gpus: of each process; more than 0 computes on the GPU that Ray gives it.
        best_of: candidates of each image, of which the best is kept; None = no choice.
        clip: folder of the CLIP that ranks them.
        tiling: how larger images are parted; None = not at all.
        guides: what pulls the base's images.
        class_name: what all images show; None = nobody says, or each one's seed.
    """

    model: CascadeFolder
    stop_at: int
    size: tuple[int, int] | None
    sampling: Mapping[int, SamplingConfig]
    negative: str | None
    loras: tuple[str, ...]
    merge_lora: bool
    runtime: Runtime
    stage_dtypes: Mapping[int, str]
    gpus: float = 0.0
    best_of: int | None = None
    clip: Path | None = None
    tiling: Tiling | None = None
    guides: tuple[GuideJob, ...] = ()
    class_name: str | None = None

    @property
    def group(self) -> int:
        """Images that are made and held together."""
        height, width = (self.stop_at, self.stop_at) if self.size is None else self.size
        # Sizes that are none are refused when images are planned.
        images = min(_GROUP_IMAGES, _GROUP_PIXELS // max(1, height * width))
        return max(1, images // (self.best_of or 1))  # candidates are held together, too

    def class_of(self, seed: int) -> str | None:
        """The class of an image; a classifier that is told none chooses by its seed."""
        return chosen_class(self.guides, seed) if self.class_name is None else self.class_name

    def options(self, captions: Sequence[str], seeds: Sequence[int]) -> SampleOptions:
        """As `Cascade.plan` takes them; the model is told the classes that it knows."""
        sampling = {r: s for r, s in self.sampling.items() if r <= self.stop_at}
        options: SampleOptions = {"stop_at": self.stop_at, "size": self.size, "sampling": sampling}
        options["tiling"] = self.tiling
        if self.negative is not None:
            options["negative_captions"] = [self.negative] * len(captions)
        if known := self.model.config.classes:
            names = map(self.class_of, seeds)
            options["classes"] = [name if name in known else None for name in names]
        return options


def settle(
    request: Request, *, model: CascadeFolder | None = None, runtime: Runtime | None = None
) -> Job:
    """Fill in what the user left open; no weights are read.

    Args:
        request: what is asked for.
        model: what `open_cascade` read of its model already.
        runtime: how to compute, chosen already.

    Raises:
        UsageError: something does not fit the model.
    """
    model, tiling = open_cascade(request.model) if model is None else model, None
    if request.tiled:
        last = model.config.stages[-1]
        tiling, model = Tiling.of_stage(last), model.repeated(MAX_TILED_SIDE)
        request = replace(request, size=last.resolution if request.size is None else request.size)
    defaults = {stage.resolution: stage.sampling for stage in model.config.stages}
    like = request.like
    if like is not None:
        defaults.update({r: s for r, s in recipe_sampling(like).items() if r in defaults})
    stop_at, size = requested_size(request, list(defaults))
    check_like(like, request.loras)
    noted = None if like is None else like.get("negative_caption")
    stage_dtypes: Mapping[int, str] = {}
    if runtime is None:
        runtime, stage_dtypes = _runtime(request)
    sampling = requested_sampling(request, defaults)
    base = model.config.stages[0]
    guides = settle_guides(request, base, sampling[base.resolution])
    job = Job(
        model=model,
        stop_at=stop_at,
        size=size,
        sampling=sampling,
        negative=noted if request.negative is None else request.negative,
        loras=tuple(request.loras or ()),
        merge_lora=request.merge_lora,
        runtime=runtime,
        stage_dtypes=stage_dtypes,
        best_of=request.best_of,
        clip=None if request.best_of is None else find_clip(request.ranking_clip),
        tiling=tiling,
        guides=guides,
        class_name=settle_class(request, model.config, guides),
    )
    if like is not None:
        _compare_weights(job, like, embedded=request.model in (None, "default"))
    return job


def _compare_weights(job: Job, like: Mapping[str, Any], *, embedded: bool) -> None:
    """Refuse to sample again with other weights; those of an older embedded cascade are gone.

    Raises:
        UsageError: the image was made by another model.
    """
    # The stages that made it: --size may ask for more of them now, or fewer.
    last = like["stages"][-1]["resolution"]
    model = Cascade.outline(job.model, stop_at=max(last, min(job.sampling)))
    name, noted = like["model"].get("name"), like["model"].get("weights", "")
    weights = weights_id(model, range(len(model.stages)))
    if not noted or weights == noted:
        return
    if embedded and name == model.name:
        print(
            f"calotype: the image was made by other weights of {name!r} ({noted:.12}; now "
            f"{weights:.12}) and cannot be made again exactly; sampling with the settings of its "
            "recipe: leave out --like for the model's own",
            file=sys.stderr,
        )
        return
    raise UsageError(
        f"the image was sampled by {name!r} with the weights {noted:.12}, but this model has "
        f"{weights:.12} now; give --model what sampled it: another cascade, or of a run that went "
        "on an earlier checkpoint's cascade folder"
    )


def _runtime(request: Request) -> tuple[Runtime, dict[int, str]]:
    """How to compute; an image sampled again is computed as it was, if possible."""
    nothing: Mapping[str, Any] = {"runtime": {}, "stages": []}
    like = nothing if request.like is None else request.like
    stored, threads, dtype = like["runtime"], request.threads, request.dtype
    if threads is None and stored.get("threads") is not None:
        threads = max(1, min(stored["threads"], usable_threads()))
    if dtype is None and stored.get("dtype") in DTYPES:
        dtype = stored["dtype"]
    noted = {stage["resolution"]: stage.get("dtype") for stage in like["stages"]}
    if request.dtype is not None:
        noted = {}
    runtime = choose_runtime(request.device, dtype, threads)
    runtime = replace(runtime, device=launched_place().device(runtime.device))
    return runtime, {r: name for r, name in noted.items() if name in DTYPES}


class CascadeGenerator:
    """A loaded cascade that makes what a job says; an `ImageGenerator`.

    Args:
        job: what is to be made.
        loaded: of the job's model, with its LoRAs, up to its last stage; None = read now.
    """

    def __init__(self, job: Job, loaded: Loaded | None = None) -> None:
        loaded = load(job) if loaded is None else loaded
        self.job = job
        self.group = job.group
        self.cascade, self.runtime, self.loras = loaded.cascade, loaded.runtime, loaded.loras
        self._pulls = loaded.pulls

    def options(self, captions: Sequence[str], seeds: Sequence[int]) -> SampleOptions:
        """As `Cascade.plan` takes them: the job's, and what pulls."""
        return {**self.job.options(captions, seeds), "pulls": self._pulls}

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> SamplePlan:
        """What is to be made; nothing is computed."""
        return self.cascade.plan(captions, seeds=seeds, **self.options(captions, seeds))

    def plan_upscale(self, image: Images, caption: str, seed: int) -> SamplePlan:
        """What an image is to be enlarged to; nothing is computed.

        Raises:
            UsageError: the job's last stage does not enlarge such images.
        """
        pixels = as_images(image)
        height, width = (int(side) for side in pixels.shape[2:])
        configs = self.job.model.config.stages
        first = first_upscaler(configs, math.sqrt(height * width))
        possible = [config.resolution for config in configs[first:]]
        if self.job.stop_at not in possible:
            raise UsageError(
                f"got --size {self.job.stop_at} for an image of {width}x{height}; expected one of "
                f"{possible}"
            )
        options = self.job.options([caption], [seed])
        options["sampling"] = {r: self.job.sampling[r] for r in possible if r <= self.job.stop_at}
        return self.cascade.plan_upscale(pixels, [caption], seeds=[seed], **options)

    def generate(self, plan: SamplePlan) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, one preview a step; closing it cancels."""
        sample = yield from self.cascade.generate(plan)
        return self._made(plan, sample.images[-1])

    def begin(self, plan: SamplePlan) -> Generator[Preview, None, Tensor]:
        """The images of the first stage alone, (B, 3, h, w) in [-1, 1]."""
        first = replace(plan, stages=plan.stages[:1])
        sample = yield from self.cascade.generate(first)
        return sample.images[0]

    def finish(self, plan: SamplePlan, images: Tensor) -> Generator[Preview, None, list[Made]]:
        """The images of a plan, whose first stage made `images`."""
        if len(plan.stages) > 1:
            rest = replace(plan, stages=plan.stages[1:], lowres=images)
            sample = yield from self.cascade.generate(rest)
            images = sample.images[-1]
        return self._made(plan, images)

    def _made(self, plan: SamplePlan, images: Tensor) -> list[Made]:
        pixels = to_pixels(images)
        return [Made(one, self.recipe(plan, row)) for row, one in enumerate(pixels)]

    def recipe(self, plan: SamplePlan, row: int) -> dict[str, Any]:
        """The recipe of an image of a plan."""
        recipe = image_recipe(self.cascade, plan, row, self.runtime)
        recipe |= class_note(self.job.class_of(recipe["seed"]))  # the model may not know it
        more = {"loras": self.loras, "guides": [to_dict(guide.note) for guide in self.job.guides]}
        return {**recipe, **{key: notes for key, notes in more.items() if notes}}


def open_generator(job: Job) -> ImageGenerator[Any]:
    """Load what makes the images of a job.

    Raises:
        UsageError: the job does not fit the weights.
        CalotypeError: files are missing or damaged.
    """
    return best_of(CascadeGenerator(job), job.best_of, job.clip)


def expected_recipe(job: Job, caption: str, seed: int) -> dict[str, Any]:
    """The recipe of an image of a job, but for its number types; no weights are read.

    Raises:
        UsageError: sizes or settings that do not fit, or a LoRA that is none.
    """
    generator = CascadeGenerator(job, outline(job))
    recipe = generator.recipe(generator.plan([caption], [seed]), 0)
    if job.best_of is None or job.clip is None:
        return recipe
    return with_best_of(recipe, job.best_of, read_clip_file(job.clip))
