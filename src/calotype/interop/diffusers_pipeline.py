"""Images by a text-to-image pipeline of diffusers in a local folder, to compare with ours.

Nothing is fetched and no code in the folder is run: its parts have to be diffusers' and
transformers' own, and its weights safetensors.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from calotype import __version__
from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.generation.generator import Made
from calotype.interop.safety import read_json
from calotype.runtime import DTYPES, choose_runtime
from calotype.storage.reading import file_sha256

if TYPE_CHECKING:
    from calotype.cascade.results import Preview
    from calotype.generation.request import Request

INDEX_FILE = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_GROUP = 4


@dataclass(frozen=True)
class DiffusersJob:
    """What samples; settings that are None are the pipeline's own.

    Args:
        folder: of the pipeline, absolute.
        steps: of its sampler.
        guidance: its `guidance_scale`.
        size: height and width.
        negative: negative caption.
        device: cpu, cuda, cuda:1 or mps.
        dtype: float32 or bfloat16.
        threads: of the CPU.
    """

    folder: Path
    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    negative: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None

    @classmethod
    def of(cls, folder: Path, request: Request) -> DiffusersJob:
        """What is asked of a pipeline.

        Raises:
            UsageError: an option means nothing to it.
        """
        _refuse(request)
        size = (request.size,) * 2 if isinstance(request.size, int) else request.size
        if request.width is not None and request.height is not None:
            size = (request.height, request.width)
        return cls(
            folder=folder,
            steps=request.steps,
            guidance=request.guidance,
            size=size,
            negative=request.negative,
            device=request.device,
            dtype=request.dtype,
            threads=request.threads,
        )


def is_diffusers(folder: Path) -> bool:
    """Whether a folder holds a pipeline of diffusers."""
    return (folder / INDEX_FILE).is_file()


@dataclass(frozen=True)
class DiffusersPlan:
    """Images that are made together: one caption and one seed each, and their size, if given."""

    captions: Sequence[str]
    seeds: Sequence[int]
    size: tuple[int, int]

    def rows(self, rows: slice) -> DiffusersPlan:
        """The plan of some of the images."""
        return DiffusersPlan(self.captions[rows], self.seeds[rows], self.size)


def pipeline_recipe(job: DiffusersJob) -> dict[str, Any]:
    """The recipe of its images, but for caption and seed; no weights are loaded.

    Raises:
        UsageError: the folder has parts that are not diffusers' or transformers' own.
    """
    index = _checked_index(job.folder)
    sampling = {k: v for k, v in asdict(job).items() if k in ("steps", "guidance")}
    side = {} if job.size is None else {"height": job.size[0], "width": job.size[1]}
    return {
        "format": 1,
        "version": __version__,
        "torch": torch.__version__,
        "kind": "sample",
        "negative_caption": job.negative,
        "model": {
            "name": job.folder.name,
            "pipeline": index["_class_name"],
            "weights": _weights(job.folder),
        },
        "stages": [{**side, "dtype": job.dtype or "float32", "sampling": sampling}],
        "runtime": {"device": job.device, "threads": job.threads},
    }


class DiffusersGenerator:
    """A loaded pipeline; an `ImageGenerator`.

    Raises:
        UsageError: it is no text-to-image pipeline, or its folder is not to be trusted.
        MissingExtra: diffusers is not installed.
        CalotypeError: it cannot be loaded.
    """

    group = _GROUP

    def __init__(self, job: DiffusersJob) -> None:
        self.job = job
        self._recipe = pipeline_recipe(job)
        try:
            diffusers = importlib.import_module("diffusers")
        except ImportError as error:
            raise MissingExtra("interop", "diffusers") from error
        runtime = choose_runtime(job.device, job.dtype or "float32", job.threads)
        runtime.apply(())
        options: dict[str, Any] = {
            "local_files_only": True,
            "use_safetensors": True,
            "trust_remote_code": False,
        }
        options |= {"low_cpu_mem_usage": False, "dtype": DTYPES[job.dtype or "float32"]}
        for package in ("diffusers", "transformers"):  # their progress is not ours
            logging = importlib.import_module(f"{package}.utils.logging")
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        try:
            load = diffusers.DiffusionPipeline.from_pretrained
            pipeline = load(str(job.folder), **options)
        except (OSError, ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CalotypeError(f"cannot load the pipeline {job.folder}: {reason:.300}") from error
        known = inspect.signature(pipeline.__call__).parameters
        if "prompt" not in known or "image" in known:
            name = type(pipeline).__name__
            raise UsageError(f"got {job.folder}, a {name}; expected a text-to-image pipeline")
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(runtime.device)
        asked = {"num_inference_steps": job.steps, "guidance_scale": job.guidance}
        if job.size is not None:
            asked |= {"height": job.size[0], "width": job.size[1]}
        self._options = {name: value for name, value in asked.items() if value is not None}

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> DiffusersPlan:
        """What is to be made; nothing is computed."""
        return DiffusersPlan(captions, seeds, self.job.size or (0, 0))

    def generate(self, plan: DiffusersPlan) -> Generator[Preview, None, list[Made]]:
        """The images; there are no previews."""
        yield from ()
        noise = [torch.Generator().manual_seed(seed) for seed in plan.seeds]
        options: dict[str, Any] = dict(self._options)
        if self.job.negative is not None:
            options["negative_prompt"] = [self.job.negative] * len(plan.captions)
        made = self._pipeline(
            prompt=list(plan.captions), generator=noise, output_type="np", **options
        )
        pixels = np.rint(np.clip(made.images, 0, 1) * 255).astype(np.uint8)
        return [Made(image, self.recipe(plan, row)) for row, image in enumerate(pixels)]

    def recipe(self, plan: DiffusersPlan, row: int) -> dict[str, Any]:
        """The recipe of an image."""
        return {**self._recipe, "caption": plan.captions[row], "seed": plan.seeds[row]}


def _refuse(request: Request) -> None:
    given = {
        "--sampler": request.sampler is not None,
        "--variety": request.variety is not None,
        "--class": request.class_name is not None,
        "--stage-option": bool(request.stage_options),
        "--lora": bool(request.loras),
        "--best-of": request.best_of is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(
                f"got {option} for a pipeline of diffusers; expected --steps, --guidance, --size, "
                "--width with --height, --negative, --device, --dtype or --threads"
            )
    sides = (request.width, request.height)
    if request.size is not None and sides != (None, None):
        raise UsageError("got --size and --width or --height; expected one of them")
    if sides != (None, None) and None in sides:
        raise UsageError("got one side for a pipeline of diffusers; expected --width with --height")


def _checked_index(folder: Path) -> dict[str, Any]:
    """What the folder says of its parts."""
    index = read_json(folder / INDEX_FILE)
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or value[0] not in (*_LIBRARIES, None):
            raise UsageError(
                f"{folder} has a {part!r:.60} of {str(value)[:80]}; expected parts of {_LIBRARIES}:"
                " code from elsewhere is not run"
            )
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise UsageError(f"{folder} says no pipeline class of diffusers, but {name!r:.80}")
    code = next(folder.rglob("*.py"), None)
    if code is not None:
        raise UsageError(f"{folder} holds {code.name}; expected no code: it would not be run")
    return index


def _weights(folder: Path) -> str:
    """One name for all weights and settings of the pipeline."""
    names = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json"))
    if not any(path.suffix == ".safetensors" for path in names):
        raise UsageError(f"{folder} has no weights in safetensors; expected some: convert it")
    parts = [f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in names]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
