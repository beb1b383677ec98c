"""`calotype upscale`: any image to a larger one, with the super-resolution stages."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from calotype.cli import options as shared
from calotype.cli import sample_options as sampling
from calotype.cli.showing import progress, tiled_progress
from calotype.generation.outputs import Output, check_output_name, output_with_id
from calotype.generation.request import Request

if TYPE_CHECKING:
    from calotype.config.stage import CascadeConfig


def upscale(
    image: Annotated[Path, Argument(help="Image to enlarge, of any common format.")],
    caption: Annotated[
        str | None,
        Argument(help="What it shows; an image of calotype's own says it.", metavar="TEXT"),
    ] = None,
    out: shared.Out = None,
    model: shared.Model = None,
    seed: shared.Seed = 0,
    class_name: sampling.ClassName = None,
    size: Annotated[
        int | None, Option(help="Resolution of the last stage (256, 1024; with --tiled 4096).")
    ] = None,
    tiled: Annotated[
        bool,
        Option("--tiled", help="In overlapping tiles, by the last stage again beyond its size."),
    ] = False,
    stage_option: shared.StageOptions = None,
    lora: shared.Loras = None,
    merge_lora: shared.MergeLora = True,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Enlarge an image with the super-resolution stages."""
    shared.check_seed(seed)
    check_output_name(out)
    from calotype.cascade.pixels import as_images

    pixels = as_images(image)  # first, for it may be none
    begin = time.perf_counter()
    from calotype.cascade.find import open_cascade
    from calotype.cascade.results import drain
    from calotype.generation.cascade import CascadeGenerator, settle
    from calotype.storage.reading import file_sha256

    opened = open_cascade(model)
    if caption is None:
        caption = _noted_caption(image, opened.config)
    request = Request(
        model=model,
        size=size,
        stage_options=stage_option,
        loras=lora,
        merge_lora=merge_lora,
        device=device,
        dtype=dtype,
        threads=threads,
        tiled=tiled,
        class_name=_noted_class(image, opened.config) if class_name is None else class_name,
    )
    generator = CascadeGenerator(settle(request, model=opened))
    plan = generator.plan_upscale(pixels, caption, seed)
    recipe = generator.recipe(plan, 0)
    recipe |= {"kind": "upscale", "source": image.name, "source_sha256": file_sha256(image)}
    place = output_with_id(Path(f"{image.stem}-upscaled.png"), recipe)
    if out is not None:
        place = Output((out,), replace=True)
    place.check(recipe)
    if tiled:
        with tiled_progress(plan, quiet=as_json) as (watched, show):
            made = drain(generator.generate(watched), show)
    else:
        with progress(1, quiet=as_json) as show:
            made = drain(generator.generate(plan), show)
    name = place.write(made[0].pixels, recipe)
    seconds = round(time.perf_counter() - begin, 3)
    print(json.dumps({"files": [str(name)], **recipe, "seconds": seconds}) if as_json else name)


def _noted_caption(image: Path, config: CascadeConfig) -> str:
    """What the recipe of an image says that it shows; "" where the model takes no captions."""
    from calotype.cascade.png import noted

    return "" if config.text_encoder == "none" else noted(image, "caption")


def _noted_class(image: Path, config: CascadeConfig) -> str | None:
    """The class in the recipe of an image; None = none that all that enlarge images know."""
    from calotype.cascade.png import noted

    name = noted(image, "class")
    enlarge = [stage for stage in config.stages if stage.lowres_resolution is not None]
    known = bool(enlarge) and all(name in stage.classes for stage in enlarge)
    return name if known else None
