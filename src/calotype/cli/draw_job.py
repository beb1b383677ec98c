"""What a drawing command was asked for, settled once, and what draws it, in whatever process."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from calotype.cascade import Cascade, Runtime
from calotype.cascade.find import find_cascade
from calotype.cascade.io import read_cascade_config, read_cascade_file
from calotype.cascade.pixels import to_pixels
from calotype.cascade.plan import DrawOptions, DrawPlan
from calotype.cascade.recipe import picture_recipe, recipe_sampling, weights_id
from calotype.cascade.runtime import DTYPES, choose_runtime, usable_threads
from calotype.cascade.stage import Stage
from calotype.cli.drawing import DrawRequest, watch
from calotype.cli.loras import apply_loras, check_like, lora_notes
from calotype.cli.options import sampling_settings
from calotype.config.sampling import SamplingConfig
from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from calotype.cascade.cascade import Preview

# Finished pictures held in memory at a time, in pixels of the last stage.
_GROUP_PIXELS = 4 * 1024 * 1024
_GROUP_PICTURES = 64


@dataclass(frozen=True)
class DrawJob:
    """All that decides pictures but their captions and seeds; can be sent to other processes.

    Args:
        folder: of the cascade, absolute.
        stop_at: resolution of the last stage drawn.
        size: height and width; None = square.
        sampling: settings by resolution, of all stages of the model.
        negative: negative caption.
        loras: texts of --lora.
        merge_lora: of --merge-lora.
        runtime: how to compute.
        stage_dtypes: number types by resolution where they differ from what `runtime` gives.
        gpus: of each process; more than 0 computes on the GPU that Ray gives it.
    """

    folder: Path
    stop_at: int
    size: tuple[int, int] | None
    sampling: Mapping[int, SamplingConfig]
    negative: str | None
    loras: tuple[str, ...]
    merge_lora: bool
    runtime: Runtime
    stage_dtypes: Mapping[int, str]
    gpus: float = 0.0

    @property
    def group(self) -> int:
        """Pictures that are drawn and held together."""
        height, width = (self.stop_at, self.stop_at) if self.size is None else self.size
        return max(1, min(_GROUP_PICTURES, _GROUP_PIXELS // (height * width)))


def settle(request: DrawRequest) -> DrawJob:
    """Fill in what the user left open; no weights are read.

    Raises:
        UsageError: something does not fit the model.
    """
    folder = find_cascade(request.model).resolve()
    config = read_cascade_config(folder)
    defaults = {stage.resolution: stage.sampling for stage in config.stages}
    stop_at, size = max(defaults), None
    like = request.like
    if like is not None:
        defaults.update({r: s for r, s in recipe_sampling(like).items() if r in defaults})
        last = like["stages"][-1]
        stop_at, size = last["resolution"], (last["height"], last["width"])
    asked = request.size
    if request.width is not None or request.height is not None:
        if asked is not None:
            raise UsageError("got --size and --width or --height; expected one of them")
        height, width = (stop_at, stop_at) if size is None else size
        asked = (
            height if request.height is None else request.height,
            width if request.width is None else request.width,
        )
    if isinstance(asked, int):
        stop_at, size = asked, None
    elif asked is not None:
        size = asked
        side = math.sqrt(max(1, min(size[0] * size[1], 2**62)))
        stop_at = min(defaults, key=lambda r: abs(math.log(r / side)))
    if stop_at not in defaults:
        what = "a picture of the stage" if request.size is None else "--size"
        raise UsageError(f"got {what} {stop_at}; expected one of {list(defaults)}, or WIDTHxHEIGHT")
    check_like(like, request.loras)
    negative = request.negative
    if negative is None and like is not None:
        negative = like.get("negative_caption")
    runtime, stage_dtypes = _runtime(request)
    job = DrawJob(
        folder=folder,
        stop_at=stop_at,
        size=size,
        sampling=sampling_settings(
            defaults,
            steps=request.steps,
            sampler=request.sampler,
            guidance=request.guidance,
            variety=request.variety,
            stage_options=request.stage_options,
        ),
        negative=negative,
        loras=tuple(request.loras or ()),
        merge_lora=request.merge_lora,
        runtime=runtime,
        stage_dtypes=stage_dtypes,
    )
    if like is not None:
        _compare_weights(job, like, embedded=request.model in (None, "default"))
    return job


def _compare_weights(job: DrawJob, like: Mapping[str, Any], *, embedded: bool) -> None:
    """Refuse to sample again with other weights; those of an older embedded cascade are gone.

    Raises:
        UsageError: the image was made by another model.
    """
    # The stages that made it: --size may ask for more of them now, or fewer.
    last = like["stages"][-1]["resolution"]
    model = outline(replace(job, stop_at=max(last, min(job.sampling))))
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
        f"the picture was drawn by {name!r} with the weights {noted:.12}, but this model has "
        f"{weights:.12} now; give --model what drew it: another cascade, or of a run that went on "
        "an earlier checkpoint's cascade folder"
    )


def _runtime(request: DrawRequest) -> tuple[Runtime, dict[int, str]]:
    """How to compute; a picture drawn again is computed as it was, if possible."""
    like: Mapping[str, Any] = (
        {"runtime": {}, "stages": []} if request.like is None else request.like
    )
    stored, threads, dtype = like["runtime"], request.threads, request.dtype
    if threads is None and stored.get("threads") is not None:
        threads = max(1, min(stored["threads"], usable_threads()))
    if dtype is None and stored.get("dtype") in DTYPES:
        dtype = stored["dtype"]
    noted = {stage["resolution"]: stage.get("dtype") for stage in like["stages"]}
    if request.dtype is not None:
        noted = {}
    runtime = choose_runtime(request.device, dtype, threads)
    return runtime, {r: name for r, name in noted.items() if name in DTYPES}


class Drawer:
    """A loaded cascade that draws what a job says."""

    def __init__(self, job: DrawJob) -> None:
        """Load and check.

        Raises:
            UsageError: the job does not fit the weights.
            CalotypeError: files are missing or damaged.
        """
        self.job = job
        self.cascade = Cascade.load(job.folder, stop_at=job.stop_at)
        check_job(job, self.cascade)
        self.loras = apply_loras(
            self.cascade, job.loras, known=list(job.sampling), merged=job.merge_lora
        )
        self.runtime = job.runtime
        if job.gpus > 0:
            dtype = job.runtime.dtype if job.runtime.forced else None
            self.runtime = choose_runtime("cuda", dtype, job.runtime.threads)
        self.runtime.apply(self.cascade.stages, self.cascade.prior)
        for stage in self.cascade.stages:
            name = job.stage_dtypes.get(stage.config.resolution)
            if name is not None:
                stage.compute_dtype = DTYPES[name]

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> DrawPlan:
        """What is to be drawn; nothing is computed."""
        return _plan(self.job, self.cascade, captions, seeds)

    def draw(self, plan: DrawPlan, show: Callable[[Preview], None]) -> list[np.ndarray]:
        """The pictures of a plan, (H, W, 3) uint8."""
        return list(to_pixels(watch(self.cascade.draw(plan), show).images[-1]))

    def recipe(self, plan: DrawPlan, row: int) -> dict[str, Any]:
        """The recipe of a picture of a plan."""
        return _recipe(picture_recipe(self.cascade, plan, row, self.runtime), self.loras)


def outline(job: DrawJob) -> Cascade:
    """The cascade of a job without its weights: enough to check what is asked for."""
    file, config = read_cascade_file(job.folder), read_cascade_config(job.folder)
    configs = [stage for stage in config.stages if stage.resolution <= job.stop_at]
    with torch.device("meta"):
        stages = [Stage(stage) for stage in configs]
    hashes = {c.resolution: e.sha256 for c, e in zip(config.stages, file.stages, strict=False)}
    return Cascade(config.text_encoder, stages, name=config.name, weights=hashes)


def check_job(job: DrawJob, cascade: Cascade) -> None:
    """Refuse what cannot be drawn, before anything is computed.

    Raises:
        UsageError: sizes or settings that do not fit.
    """
    _plan(job, cascade, [""], [0])


def expected_recipe(job: DrawJob, caption: str, seed: int) -> dict[str, Any]:
    """The recipe of an image of a job, but for its number types; no weights are read.

    Raises:
        UsageError: as `check_job`, or a LoRA that is none.
    """
    cascade = outline(job)
    plan = _plan(job, cascade, [caption], [seed])
    return _recipe(picture_recipe(cascade, plan, 0, job.runtime), lora_notes(job.loras))


def _recipe(recipe: dict[str, Any], loras: list[dict[str, Any]]) -> dict[str, Any]:
    return {**recipe, "loras": loras} if loras else recipe


def _plan(
    job: DrawJob, cascade: Cascade, captions: Sequence[str], seeds: Sequence[int]
) -> DrawPlan:
    resolutions = [stage.config.resolution for stage in cascade.stages]
    options: DrawOptions = {
        "stop_at": job.stop_at,
        "size": job.size,
        "sampling": {resolution: job.sampling[resolution] for resolution in resolutions},
    }
    if job.negative is not None:
        options["negative_captions"] = [job.negative] * len(captions)
    return cascade.plan(captions, seeds=seeds, **options)


def on_workers(job: DrawJob, workers: int, *, threads: int | None, gpus: float) -> DrawJob:
    """The job for several processes: each with its share of the threads, all with one number type.

    Args:
        job: as settled for this process.
        workers: processes.
        threads: of each, if the user said so.
        gpus: of each.
    """
    share = job.runtime.threads if threads is not None else max(1, job.runtime.threads // workers)
    return replace(job, runtime=replace(job.runtime, threads=share), gpus=gpus)
