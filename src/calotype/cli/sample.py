"""`calotype sample`: captions to pictures."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.drawing import contact_sheet, output_names, progress, watch
from calotype.cli.loras import Loras, MergeLora, apply_loras, check_like
from calotype.cli.options import (
    Device,
    Dtype,
    Json,
    Model,
    Negative,
    Output,
    StageOptions,
    Threads,
    check_seed,
    parse_size,
    sampling_settings,
)
from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from calotype.cascade import Cascade, Runtime
    from calotype.cascade.plan import DrawOptions

_MAX_PICTURES = 1_000_000
_MAX_SHEET = 256
_MAX_SHEET_PIXELS = 2**26
# Finished pictures held in memory at a time, in pixels of the last stage.
_GROUP_PIXELS = 4 * 1024 * 1024


@dataclass(frozen=True)
class _Request:
    """What the user asked for."""

    captions: Sequence[str]
    seeds: Sequence[int]
    negative: str | None
    model: str | None
    size: int | tuple[int, int] | None
    steps: int | None
    guidance: float | None
    stage_options: Sequence[str] | None
    like: dict[str, Any] | None
    loras: Sequence[str] | None
    merge_lora: bool
    write_captions: bool
    device: str | None
    dtype: str | None
    threads: int | None


def sample(
    captions: Annotated[
        list[str] | None, typer.Argument(help="What to draw; '' draws without a caption.")
    ] = None,
    output: Output = None,
    model: Model = None,
    count: Annotated[
        int, typer.Option("-n", help="Pictures a caption, with seeds s, s+1, ...")
    ] = 1,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the first picture, 0 to 2^63-1; 0 if not given."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the base stage.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance weight of the base stage; 1 = off.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Resolution of the last stage drawn (64, 256, 1024), or WIDTHxHEIGHT."),
    ] = None,
    stage_option: StageOptions = None,
    negative: Negative = None,
    lora: Loras = None,
    merge_lora: MergeLora = True,
    from_file: Annotated[
        Path | None, typer.Option(help="Text file with one caption a line; - is the input.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Write one sheet of all pictures.")] = False,
    like: Annotated[
        Path | None, typer.Option(help="PNG to draw again; other options change its recipe.")
    ] = None,
    write_captions: Annotated[
        bool,
        typer.Option("--write-captions", help="Write NAME.txt with its caption beside NAME.png."),
    ] = False,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Draw pictures of captions; each PNG carries its recipe."""
    if not 1 <= count <= _MAX_PICTURES:
        raise UsageError(f"got -n {count}; expected 1 to {_MAX_PICTURES}")
    recipe = _read_like(like)
    texts = _captions(captions, from_file, recipe)
    first = seed if seed is not None else (0 if recipe is None else int(recipe["seed"]))
    check_seed(first, count)
    total = len(texts) * count
    if grid and total > _MAX_SHEET:
        raise UsageError(f"got --grid with {total} pictures; expected at most {_MAX_SHEET}")
    names = output_names(output, caption=texts[0], seed=first, count=1 if grid else total)
    request = _Request(
        captions=[text for text in texts for _ in range(count)],
        seeds=[first + i for _ in texts for i in range(count)],
        negative=negative,
        model=model,
        size=None if size is None else parse_size(size),
        steps=steps,
        guidance=guidance,
        stage_options=stage_option,
        like=recipe,
        loras=lora,
        merge_lora=merge_lora,
        write_captions=write_captions,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    begin = time.perf_counter()
    report = _draw(request, names, quiet=as_json)
    report["seconds"] = round(time.perf_counter() - begin, 3)
    if as_json:
        print(json.dumps(report))
    else:
        for name in names:
            print(name)


def _read_like(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    from calotype.cascade.png import read_recipe
    from calotype.cascade.recipe import check_recipe

    recipe = read_recipe(path)
    check_recipe(recipe)
    return recipe


def _captions(
    given: Sequence[str] | None, from_file: Path | None, recipe: dict[str, Any] | None
) -> list[str]:
    if given and from_file is not None:
        raise UsageError("got captions and --from-file; expected one of them")
    if given:
        return list(given)
    if from_file is not None:
        return _read_captions(from_file)
    if recipe is not None:
        return [recipe["caption"]]
    raise UsageError("got no caption; expected e.g. calotype sample 'a red fox' -o fox.png")


def _read_captions(path: Path) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name a text file") from error
    text = data.decode("utf-8-sig", errors="replace")
    # Only line feeds end a caption: str.splitlines would also cut at exotic separators.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    captions = [line for line in lines if line.strip()]
    if not captions:
        raise UsageError(f"{path} holds no caption; expected one a line")
    return captions


def _draw(request: _Request, names: Sequence[Path], *, quiet: bool) -> dict[str, Any]:
    """Draw in groups that fit in memory, and write each group as it is done."""
    from calotype.cascade.files import write_file
    from calotype.cascade.pixels import to_pixels
    from calotype.cascade.png import write_png
    from calotype.cascade.recipe import picture_recipe

    cascade, options, loras = _prepare(request)
    runtime = _apply_runtime(cascade, request)
    whole = cascade.plan(request.captions, seeds=request.seeds, **options)
    shown = whole.stages[-1].shown
    group = max(1, min(64, _GROUP_PIXELS // (shown[0] * shown[1])))
    sheet: list[np.ndarray] = []
    recipes: list[dict[str, Any]] = []
    one_file = len(names) == 1 and len(request.captions) > 1
    if one_file and shown[0] * shown[1] * len(request.captions) > _MAX_SHEET_PIXELS:
        raise UsageError("got --grid with too many pictures for one sheet; use a smaller --size")
    with progress(len(request.captions), quiet=quiet) as show:
        for start in range(0, len(request.captions), group):
            rows = slice(start, start + group)
            part: DrawOptions = {**options}
            if whole.negatives is not None:
                part["negative_captions"] = whole.negatives[rows]
            plan = cascade.plan(request.captions[rows], seeds=request.seeds[rows], **part)
            result = watch(cascade.draw(plan), show)
            for row, pixels in enumerate(to_pixels(result.images[-1])):
                recipe = picture_recipe(cascade, plan, row, runtime)
                recipe |= {"loras": loras} if loras else {}
                recipes.append(recipe)
                if one_file:
                    sheet.append(pixels)
                else:
                    write_png(names[start + row], pixels, recipe)
                    if request.write_captions:
                        text = recipe["caption"].encode("utf-8", "replace")
                        write_file(names[start + row].with_suffix(".txt"), text)
    if one_file:
        pictures = [{"caption": r["caption"], "seed": r["seed"]} for r in recipes]
        write_png(names[0], contact_sheet(sheet), {**recipes[0], "kind": "grid", "of": pictures})
    report = _report(names, recipes)
    return {**report, "kind": "grid"} if one_file else report


def _report(names: Sequence[Path], recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = ("caption", "negative_caption", "seed")
    files = [str(name) for name in names] if len(names) == len(recipes) else [str(names[0])]
    pictures = [
        {"file": files[min(i, len(files) - 1)], **{k: recipe[k] for k in own}}
        for i, recipe in enumerate(recipes)
    ]
    common = {k: v for k, v in recipes[0].items() if k not in own}
    return {"files": files, "pictures": pictures, **common}


def _prepare(request: _Request) -> tuple[Cascade, DrawOptions, list[dict[str, Any]]]:
    """Load the cascade and settle what is drawn, and with which LoRAs."""
    from calotype.cascade import Cascade
    from calotype.cascade.find import find_cascade
    from calotype.cascade.io import read_cascade_config
    from calotype.cascade.recipe import recipe_sampling, weights_id

    folder = find_cascade(request.model)
    config = read_cascade_config(folder)
    defaults = {stage.resolution: stage.sampling for stage in config.stages}
    stop_at, size = max(defaults), None
    if request.like is not None:
        known = {r: s for r, s in recipe_sampling(request.like).items() if r in defaults}
        defaults.update(known)
        last = request.like["stages"][-1]
        stop_at, size = last["resolution"], (last["height"], last["width"])
    if isinstance(request.size, int):
        stop_at, size = request.size, None
    elif request.size is not None:
        size = request.size
        side = max(1.0, math.sqrt(size[0] * size[1]))
        stop_at = min(defaults, key=lambda r: abs(math.log(r / side)))
    if stop_at not in defaults:
        what = "a picture of the stage" if request.size is None else "--size"
        raise UsageError(f"got {what} {stop_at}; expected one of {list(defaults)}, or WIDTHxHEIGHT")
    settings = sampling_settings(
        defaults,
        steps=request.steps,
        guidance=request.guidance,
        stage_options=request.stage_options,
    )
    cascade = Cascade.load(folder, stop_at=stop_at)
    if request.like is not None:
        drawn = weights_id(cascade, range(len(cascade.stages)))
        noted = request.like.get("model", {}).get("weights", "")
        if noted and drawn != noted:
            raise UsageError(
                f"the picture was drawn by {request.like['model'].get('name')!r} with the weights "
                f"{noted:.12}, but this model has {drawn:.12} now; give --model what drew it: "
                "another cascade, or of a run that went on an earlier checkpoint's cascade folder"
            )
    drawn_settings = {s.config.resolution: settings[s.config.resolution] for s in cascade.stages}
    options: DrawOptions = {"stop_at": stop_at, "size": size, "sampling": drawn_settings}
    negative = request.negative
    if negative is None and request.like is not None:
        negative = request.like.get("negative_caption")
    if negative is not None:
        options["negative_captions"] = [negative] * len(request.captions)
    cascade.plan(request.captions, seeds=request.seeds, **options)  # errors before computing
    check_like(request.like, request.loras)
    loras = apply_loras(cascade, request.loras, known=list(defaults), merged=request.merge_lora)
    return cascade, options, loras


def _apply_runtime(cascade: Cascade, request: _Request) -> Runtime:
    """Choose how to compute; a picture drawn again is computed as it was, if possible."""
    from calotype.cascade.runtime import DTYPES, choose_runtime, usable_threads

    stored = {} if request.like is None else request.like.get("runtime", {})
    threads, dtype = request.threads, request.dtype
    if threads is None and stored.get("threads") is not None:
        threads = max(1, min(stored["threads"], usable_threads()))
    if dtype is None and stored.get("dtype") in DTYPES:
        dtype = stored["dtype"]
    runtime = choose_runtime(request.device, dtype, threads)
    runtime.apply(cascade.stages)
    if request.like is not None and request.dtype is None:
        noted = {stage["resolution"]: stage.get("dtype") for stage in request.like["stages"]}
        for stage in cascade.stages:
            name = noted.get(stage.config.resolution)
            if name in DTYPES:
                stage.compute_dtype = DTYPES[name]
    return runtime
