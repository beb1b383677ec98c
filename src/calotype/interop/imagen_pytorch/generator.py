"""Images by converted cascades of imagen-pytorch, for `calotype sample` and `evaluate`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from calotype import __version__
from calotype.cascade.pixels import from_pixels
from calotype.errors import UsageError
from calotype.generation.best_of import BestOf, best_of, with_best_of
from calotype.generation.generator import Made, StagedGenerator
from calotype.interop.imagen_pytorch.files import WEIGHTS_FILE, load, outline
from calotype.interop.imagen_pytorch.imagen import ElucidatedImagen, Imagen, change_steps
from calotype.launch import launched_place
from calotype.runtime import choose_runtime
from calotype.storage.reading import file_sha256
from calotype.vision.clip import find_clip, read_clip_file

if TYPE_CHECKING:
    from calotype.cascade.results import Preview
    from calotype.generation.request import Request

_GUIDANCE = 3.0  # of that package's examples; a cascade has none of its own


@dataclass(frozen=True)
class ImagenPlan:
    """Images that are made together, one after the other."""

    captions: Sequence[str]
    seeds: Sequence[int]
    size: tuple[int, int]

    def rows(self, rows: slice) -> ImagenPlan:
        """The plan of some of the images."""
        return ImagenPlan(self.captions[rows], self.seeds[rows], self.size)


class ImagenGenerator:
    """A converted cascade that makes one image a seed; an `ImageGenerator`.

    Args:
        request: what is asked of it.
        quiet: whether it shows no progress.
        with_weights: whether it can sample; without, nothing but their names and shapes is read.

    Raises:
        UsageError: an option means nothing to such a cascade.
        CalotypeError: files are missing or damaged.
    """

    group = 1

    def __init__(self, request: Request, *, quiet: bool, with_weights: bool = True) -> None:
        _refuse(request)
        model = load(str(request.model)) if with_weights else outline(str(request.model))
        if not isinstance(model, Imagen | ElucidatedImagen):
            raise UsageError(f"{request.model} holds a single U-Net; expected a cascade")
        sizes = model.image_sizes
        if request.size is not None and request.size not in sizes:
            raise UsageError(f"got --size {request.size}; expected one of {list(sizes)}")
        if request.steps is not None:
            change_steps(model, request.steps)
        self.model = model
        if with_weights:
            runtime = choose_runtime(request.device, "float32", request.threads)
            runtime.apply(())
            self.model = model.to(launched_place().device(runtime.device))
        last = len(sizes) if request.size is None else sizes.index(request.size) + 1
        self._side = sizes[last - 1]
        guidance = _GUIDANCE if request.guidance is None else request.guidance
        self._options: dict[str, Any] = {
            "cond_scale": 1.0 if model.unconditional else guidance,
            "stop_at_unet_number": last,
            "return_pil_images": True,
            "use_tqdm": not quiet,
        }
        folder = Path(str(request.model))
        self._name, self._weights = folder.name, file_sha256(folder / WEIGHTS_FILE)

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> ImagenPlan:
        """Check the captions; nothing is computed."""
        if self.model.unconditional and any(captions):
            raise UsageError("got a caption for a cascade without text; expected ''")
        return ImagenPlan(captions, seeds, (self._side, self._side))

    def generate(self, plan: ImagenPlan) -> Generator[Preview, None, list[Made]]:
        """The images; the cascade shows its own progress, and no previews."""
        yield from ()
        return [
            Made(pixels, self.recipe(plan, row)) for row, pixels in enumerate(self._sample(plan))
        ]

    def begin(self, plan: ImagenPlan) -> Generator[Preview, None, Tensor]:
        """The images of the first stage alone, (B, 3, h, w) in [-1, 1]."""
        yield from ()
        return from_pixels(np.stack(self._sample(plan, stop_at_unet_number=1)))

    def finish(self, plan: ImagenPlan, images: Tensor) -> Generator[Preview, None, list[Made]]:
        """All stages anew: their noise comes from one stream of numbers, the first's included."""
        return self.generate(plan)

    def _sample(self, plan: ImagenPlan, **changes: Any) -> list[np.ndarray]:
        images = []
        for caption, seed in zip(plan.captions, plan.seeds, strict=True):
            torch.manual_seed(seed)
            texts = None if self.model.unconditional else [caption]
            image = self.model.sample(texts=texts, **{**self._options, **changes})[0]
            images.append(np.asarray(image.convert("RGB")))
        return images

    def recipe(self, plan: ImagenPlan, row: int) -> dict[str, Any]:
        """What the PNG carries."""
        steps = [len(formulation.levels) - 1 for formulation in self.model.formulations]
        sampling = {"guidance_weight": self._options["cond_scale"]}
        return {
            "format": 1,
            "version": __version__,
            "torch": torch.__version__,
            "kind": "imagen_pytorch",
            "caption": plan.captions[row],
            "negative_caption": None,
            "seed": plan.seeds[row],
            "model": {
                "name": self._name,
                "text_encoder": self.model.lazy_text.spec,
                "weights": self._weights,
            },
            "stages": [
                {
                    "resolution": side,
                    "height": side,
                    "width": side,
                    "dtype": "float32",
                    "sampling": {"steps": count, **sampling},
                }
                for side, count in zip(self.model.image_sizes, steps, strict=True)
            ][: self._options["stop_at_unet_number"]],
        }


def open_imagen(request: Request, *, quiet: bool = True) -> StagedGenerator[Any] | BestOf:
    """Load what makes the images of a request; arguments and errors as of `ImagenGenerator`."""
    return best_of(ImagenGenerator(request, quiet=quiet), request.best_of, request.clip)


def imagen_recipe(request: Request) -> dict[str, Any]:
    """The recipe of its images, but for caption and seed; no weights are loaded.

    Raises:
        UsageError: an option means nothing to such a cascade.
        CalotypeError: files are missing or do not fit each other.
    """
    generator = ImagenGenerator(request, quiet=True, with_weights=False)
    recipe = generator.recipe(generator.plan([""], [0]), 0)
    if request.best_of is None:
        return recipe
    return with_best_of(recipe, request.best_of, read_clip_file(find_clip(request.clip)))


def _refuse(request: Request) -> None:
    given = {
        "WIDTHxHEIGHT as --size": isinstance(request.size, tuple),
        "--width": request.width is not None,
        "--height": request.height is not None,
        "--sampler": request.sampler is not None,
        "--variety": request.variety is not None,
        "--stage-option": bool(request.stage_options),
        "--negative": request.negative is not None,
        "--like": request.like is not None,
        "--lora": bool(request.loras),
        "--class": request.class_name is not None,
        "--dtype": request.dtype is not None,
        "--classifier or --clip-guidance": request.guides.asked,
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(
                f"got {option} for a cascade of imagen-pytorch; expected captions, -n, --seed, "
                "--steps, --guidance, --size as one number, --grid, --device or --threads"
            )
