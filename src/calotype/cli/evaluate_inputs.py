"""How the options of the commands that evaluate are read: suites, models, workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cli.sample import is_imagen_pytorch
from calotype.errors import UsageError
from calotype.launch import launched_place

if TYPE_CHECKING:
    from calotype.evaluation.evaluate import Sampler
    from calotype.evaluation.results import Number
    from calotype.evaluation.suites.suite import Suite
    from calotype.evaluation.sweep.axes import Axis
    from calotype.generation.executors import Executor
    from calotype.generation.request import Request

LARGEST_SIDE = 256
LEAST_SIDE = 8


@dataclass(frozen=True)
class Asked:
    """A suite, and the file names of the real images that go with it; None = all there are."""

    suite: Suite
    names: frozenset[str] | None = None


def read_named_suite(
    name: str,
    *,
    prompts: int | None,
    coco_list: Path | None = None,
    without_people: str | None = None,
) -> Asked:
    """The suite of a name or file.

    Raises:
        UsageError: there is none, or the options are not for it.
    """
    from calotype.emoji.eleven.suite import NAME, emoji_suite
    from calotype.evaluation.suites.coco import CocoChoices, read_coco
    from calotype.evaluation.suites.reading import read_suite
    from calotype.evaluation.suites.suite import subset

    of_coco = coco_list is not None or without_people is not None
    names = None
    if name == NAME:
        suite = emoji_suite()
    elif of_coco:
        people: Any = without_people
        if without_people not in (None, "words"):
            people = Path(str(without_people))
        choices = CocoChoices(without_people=people, listed=coco_list)
        coco = read_coco(Path(name), choices)
        suite, names = coco.suite, frozenset(coco.reference)
    else:
        suite = read_suite(Path(name))
    if of_coco and name == NAME:
        raise UsageError(f"got --coco-list or --without-people for {name}; they are of COCO")
    return Asked(subset(suite, prompts), names)


def sampler_of(source: str, request: Request, *, each: int, seed: int) -> Sampler | Path:
    """What samples, or where images lie.

    Raises:
        UsageError: there is nothing there, or options do not fit what is.
    """
    from calotype.evaluation.evaluate import Sampler
    from calotype.evaluation.samples import is_sample_set
    from calotype.generation.cascade import expected_recipe, open_generator, settle
    from calotype.interop.diffusers_pipeline import (
        DiffusersGenerator,
        DiffusersJob,
        is_diffusers,
        pipeline_recipe,
    )

    path = Path(source)
    if source != "default" and not (source and path.exists()):
        raise UsageError(f"got {source!r:.200}, where nothing is; expected a model or images")
    if source != "default" and is_imagen_pytorch(source):
        from calotype.interop.imagen_pytorch.generator import imagen_recipe, open_imagen

        request = replace(request, model=str(path.resolve()))
        return Sampler(open_imagen, request, imagen_recipe(request), each, seed)
    if source != "default" and path.is_dir() and is_diffusers(path):
        job = DiffusersJob.of(path.resolve(), request)
        return Sampler(DiffusersGenerator, job, pipeline_recipe(job), each, seed)
    if source == "default" or _is_model(path):
        settings = settle(request)
        return Sampler(open_generator, settings, expected_recipe(settings, "", 0), each, seed)
    if is_sample_set(path) or path.exists():
        return path
    raise UsageError(f"got {source!r:.200}; expected a model or images")


def read_axes(
    preset: str | None, texts: Sequence[str] | None, request: Request
) -> tuple[Axis, ...]:
    """The axes of a preset, or those of `--axis`.

    Raises:
        UsageError: both or neither are given, or they do not fit the model.
    """
    from calotype.evaluation.sweep.axes import parse_axis, preset_axes
    from calotype.generation.cascade import settle

    if (preset is None) == (not texts):
        raise UsageError("expected either --preset NAME or --axis RESOLUTION:SETTING=VALUES")
    if preset is None:
        return tuple(parse_axis(text) for text in texts or ())
    return preset_axes(preset, list(settle(request).sampling))


def _is_model(path: Path) -> bool:
    """Whether a folder is a cascade, or a run that trained one."""
    return any((path / name).exists() for name in ("cascade.json", "checkpoints", "recipe.json"))


def with_losses(
    what: Sampler | Path, request: Request, reference: Path | None, images: int
) -> Sampler | Path:
    """What samples, with the losses of its stages by noise level.

    Raises:
        UsageError: it is no cascade, or there are no real images.
    """
    from calotype.generation.cascade import Job

    if images == 0:
        return what
    if isinstance(what, Path) or not isinstance(what.settings, Job) or reference is None:
        raise UsageError("got --losses; expected a cascade to measure, and --reference")
    job, data = what.settings, reference

    def numbers() -> list[Number]:
        from calotype.cascade import Cascade
        from calotype.emoji.captions import GRAMMAR
        from calotype.evaluation.level_losses import level_losses

        cascade = Cascade.load(request.model, stop_at=job.stop_at)
        job.runtime.apply(cascade.stages, cascade.prior)
        return level_losses(cascade, data, images=images, grammar=GRAMMAR)

    return replace(what, numbers=numbers)


def default_side(what: Sampler | Path) -> int:
    """The images' own side, of a folder of images the first one's, at most 256 pixels."""
    from calotype.evaluation.samples import is_sample_set, open_samples

    size = None
    if isinstance(what, Path):
        size = open_samples(what).manifest.size if is_sample_set(what) else _first_size(what)
    else:
        last = what.common["stages"][-1]
        size = (last["height"], last["width"]) if "height" in last else None
    return LARGEST_SIDE if size is None else max(LEAST_SIDE, min(LARGEST_SIDE, *size))


def _first_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the first of other people's images; None where it cannot be read."""
    from calotype.data.columns import Selection
    from calotype.data.images import BrokenImage, decode_image
    from calotype.data.open import open_part, parts

    images = open_part(path.resolve(), parts(path)[-1], Selection(split=None, variants=1))
    try:
        height, width = decode_image(images.image_bytes(0)).shape[:2]
    except BrokenImage:  # whoever reads all of them will say so
        return None
    return height, width


def executor_of(workers: int | None, ray: str | None, gpus: float) -> Executor:
    """Who works.

    Raises:
        UsageError: out of range, or workers under torchrun.
    """
    from calotype.data.work import usable_cores
    from calotype.generation.executors import Executor

    if workers is not None and not 1 <= workers <= 4096:
        raise UsageError(f"got --workers {workers}; expected 1 to 4096")
    if launched_place().world_size > 1 and (ray is not None or (workers or 1) > 1):
        raise UsageError("got --workers or --ray under torchrun, which starts the processes")
    if workers is None:
        workers = 1 if ray is None else usable_cores()
    return Executor(workers, ray, gpus)
