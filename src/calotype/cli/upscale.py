"""`calotype upscale`: any image to a larger one, with the super-resolution stages."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.options import (
    Device,
    Dtype,
    Json,
    Loras,
    MergeLora,
    Model,
    Out,
    Seed,
    StageOptions,
    Threads,
    check_seed,
)
from calotype.cli.showing import progress
from calotype.errors import CalotypeError
from calotype.generation.outputs import Output, check_output_name, output_with_id
from calotype.generation.request import Request


def upscale(
    image: Annotated[Path, typer.Argument(help="Image to enlarge, of any common format.")],
    caption: Annotated[
        str | None,
        typer.Argument(help="What it shows; an image of calotype's own tells it.", metavar="TEXT"),
    ] = None,
    out: Out = None,
    model: Model = None,
    seed: Seed = 0,
    size: Annotated[
        int | None, typer.Option(help="Resolution of the last stage (256, 1024).")
    ] = None,
    stage_option: StageOptions = None,
    lora: Loras = None,
    merge_lora: MergeLora = True,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Enlarge an image with the super-resolution stages."""
    check_seed(seed)
    check_output_name(out)
    from calotype.cascade.pixels import as_images

    pixels = as_images(image)  # first, for it may be none
    text = _caption_of(image) if caption is None else caption
    begin = time.perf_counter()
    from calotype.cascade.results import drain
    from calotype.generation.cascade import CascadeGenerator, settle
    from calotype.storage.reading import file_sha256

    request = Request(
        model=model,
        size=size,
        stage_options=stage_option,
        loras=lora,
        merge_lora=merge_lora,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    generator = CascadeGenerator(settle(request))
    plan = generator.plan_upscale(pixels, text, seed)
    recipe = generator.recipe(plan, 0)
    recipe |= {"kind": "upscale", "source": image.name, "source_sha256": file_sha256(image)}
    place = output_with_id(Path(f"{image.stem}-upscaled.png"), recipe)
    if out is not None:
        place = Output((out,), replace=True)
    place.check(recipe)
    with progress(1, quiet=as_json) as show:
        made = drain(generator.generate(plan), show)
    name = place.write(made[0].pixels, recipe)
    seconds = round(time.perf_counter() - begin, 3)
    print(json.dumps({"files": [str(name)], **recipe, "seconds": seconds}) if as_json else name)


def _caption_of(image: Path) -> str:
    """The caption in an image that calotype drew; else the null caption."""
    from calotype.cascade.png import read_recipe

    try:
        caption = read_recipe(image).get("caption", "")
    except CalotypeError:
        return ""
    return caption if isinstance(caption, str) else ""
