"""`calotype upscale`: any picture to a larger one, with the super-resolution stages."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.drawing import progress, watch
from calotype.cli.loras import Loras, MergeLora, apply_loras
from calotype.cli.options import (
    Device,
    Dtype,
    Json,
    Model,
    Out,
    Seed,
    StageOptions,
    Threads,
    check_seed,
    sampling_settings,
)
from calotype.cli.outputs import Output, check_output_name, output_with_id
from calotype.errors import CalotypeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from calotype.cascade import Cascade


def upscale(
    picture: Annotated[Path, typer.Argument(help="Picture to enlarge, of any common format.")],
    caption: Annotated[
        str | None,
        typer.Argument(help="What it shows; a picture of calotype's own tells it.", metavar="TEXT"),
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
    """Enlarge a picture with the super-resolution stages."""
    check_seed(seed)
    check_output_name(out)
    from calotype.cascade.pixels import as_images

    pixels = as_images(picture)
    text = _caption_of(picture) if caption is None else caption
    begin = time.perf_counter()
    from calotype.cascade import Cascade, choose_runtime
    from calotype.cascade.io import file_sha256
    from calotype.cascade.pixels import to_pixels
    from calotype.cascade.plan import plan_upscale
    from calotype.cascade.recipe import picture_recipe

    cascade = Cascade.load(model)
    defaults = {s.config.resolution: s.config.sampling for s in cascade.stages}
    if size is not None:
        _check_size(size, cascade, pixels)
    settings = sampling_settings(defaults, stage_options=stage_option)
    plan = plan_upscale(cascade.stages, pixels, [text], seeds=[seed], options={"stop_at": size})
    drawn = [cascade.stages[stage.index].config.resolution for stage in plan.stages]
    loras = apply_loras(cascade, lora, known=list(defaults), merged=merge_lora)
    runtime = choose_runtime(device, dtype, threads)
    runtime.apply(cascade.stages, cascade.prior)
    recipe: dict[str, Any] = picture_recipe(cascade, plan, 0, runtime)
    for stage in recipe["stages"]:
        stage["sampling"] = _plain(settings[stage["resolution"]])
    recipe |= {"kind": "upscale", "source": picture.name, "source_sha256": file_sha256(picture)}
    recipe |= {"loras": loras} if loras else {}
    place = output_with_id(Path(f"{picture.stem}-upscaled.png"), recipe)
    if out is not None:
        place = Output((out,), replace=True)
    place.check(recipe)
    steps = cascade.upscale_steps(
        pixels, [text], seeds=[seed], stop_at=size, sampling={r: settings[r] for r in drawn}
    )
    with progress(1, quiet=as_json) as show:
        result = watch(steps, show)
    name = place.write(to_pixels(result.images[-1])[0], recipe)
    seconds = round(time.perf_counter() - begin, 3)
    print(json.dumps({"files": [str(name)], **recipe, "seconds": seconds}) if as_json else name)


def _check_size(size: int, cascade: Cascade, pixels: Tensor) -> None:
    """Refuse a --size that is no stage from the one on that enlarges such pictures."""
    from calotype.cascade.sizes import first_upscaler

    height, width = (int(side) for side in pixels.shape[2:])
    first = first_upscaler(cascade.stages, math.sqrt(height * width))
    possible = [stage.config.resolution for stage in cascade.stages[first:]]
    if size not in possible:
        raise UsageError(
            f"got --size {size} for a picture of {width}x{height}; expected one of {possible}"
        )


def _plain(settings: Any) -> dict[str, Any]:
    from calotype.config.typed_json import to_dict

    return to_dict(settings)


def _caption_of(picture: Path) -> str:
    """The caption in a picture that calotype drew; else the null caption."""
    from calotype.cascade.png import read_recipe

    try:
        caption = read_recipe(picture).get("caption", "")
    except CalotypeError:
        return ""
    return caption if isinstance(caption, str) else ""
