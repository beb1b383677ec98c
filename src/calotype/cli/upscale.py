"""`calotype upscale`: any image to a larger one, with the super-resolution stages."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli import options as shared
from calotype.cli.showing import progress, tiled_progress
from calotype.generation.outputs import Output, check_output_name, output_with_id
from calotype.generation.request import Request


def upscale(
    image: Annotated[Path, Argument(help="Image to enlarge, of any common format.")],
    caption: Annotated[
        str | None,
        Argument(help="What it shows; an image of calotype's own says it.", metavar="TEXT"),
    ] = None,
    out: shared.Out = None,
    model: shared.Model = None,
    seed: shared.Seed = 0,
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
    from calotype.cascade.png import noted_caption

    pixels = as_images(image)  # first, for it may be none
    text = noted_caption(image) if caption is None else caption
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
        tiled=tiled,
    )
    generator = CascadeGenerator(settle(request))
    plan = generator.plan_upscale(pixels, text, seed)
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
