"""`calotype edit`: an image and a caption to the image, changed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from calotype.cli import edit_options as own
from calotype.cli import options as shared
from calotype.cli import sample_options as sampling
from calotype.cli.showing import made_in_groups, progress
from calotype.errors import UsageError
from calotype.generation.edit_source import Step, parse_colour, parse_four, parse_pair
from calotype.generation.outputs import Output, check_output_name, numbered_name, output_with_id
from calotype.generation.request import GuideRequest, Request

_MOST_IMAGES = 1024


def edit(
    image: own.Source,
    caption: own.Caption = "",
    out: shared.Out = None,
    mask: own.Mask = None,
    invert_mask: own.InvertMask = False,
    fit_mask: own.FitMask = False,
    box: own.Boxes = None,
    extend: own.Extend = None,
    strength: own.Strength = None,
    vary: own.Vary = None,
    invert: own.Invert = False,
    refine: own.Refine = 0,
    source_caption: own.SourceCaption = None,
    grow: own.Grow = 0,
    feather: own.Feather = 0,
    crop: own.Crop = "auto",
    padding: own.Padding = 0.5,
    blind: own.Blind = False,
    resampling: own.Repaint = None,
    background: own.Background = "white",
    steps_file: own.List = None,
    like: own.Like = None,
    count: own.Count = 1,
    seed: shared.Seed = 0,
    model: shared.Model = None,
    steps: sampling.Steps = None,
    sampler: sampling.Sampler = None,
    guidance: sampling.Guidance = None,
    variety: sampling.Variety = None,
    class_name: sampling.ClassName = None,
    classifier: sampling.Classifier = None,
    classifier_scale: sampling.ClassifierScale = None,
    clip_guidance: sampling.ClipGuidance = None,
    guidance_form: sampling.Form = None,
    size: own.Size = None,
    stage_option: shared.StageOptions = None,
    negative: shared.Negative = None,
    lora: shared.Loras = None,
    merge_lora: shared.MergeLora = True,
    best_of: sampling.BestOf = None,
    clip: shared.Clip = None,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Edit an image: fill a hole, extend it, change it, vary it. What is kept stays to the byte."""
    request = Request(
        like=shared.read_like(like, kind="edit"),
        negative=negative,
        model=model,
        size=size,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        variety=variety,
        class_name=class_name,
        guides=GuideRequest(classifier, classifier_scale, clip_guidance, guidance_form),
        stage_options=stage_option,
        loras=lora,
        merge_lora=merge_lora,
        device=device,
        dtype=dtype,
        threads=threads,
        best_of=best_of,
        clip=clip,
    )
    step = Step(
        caption=caption,
        seed=seed,
        mask=None if mask is None else str(mask),
        invert_mask=invert_mask,
        fit_mask=fit_mask,
        boxes=tuple(parse_four("--box", text) for text in box or ()),
        extend=None if extend is None else parse_four("--extend", extend),
        grow=grow,
        strength=strength,
        vary=vary,
        invert=invert,
        refine=refine,
        source_caption=source_caption,
        blind=blind,
        resampling=None if resampling is None else parse_pair("--resampling", resampling),
        crop=crop == "auto",
        padding=padding,
        feather=feather,
        background=parse_colour(background),
    )
    _run_asked(request, image, step, steps_file, count=count, out=out, as_json=as_json)


def _run_asked(
    request: Request,
    image: Path,
    step: Step,
    steps_file: Path | None,
    *,
    count: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Edit as the command line says: step by step of a list, as before, or as its options say."""
    if not 1 <= count <= _MOST_IMAGES:
        raise UsageError(f"got -n {count}; expected 1 to {_MOST_IMAGES}")
    shared.check_seed(step.seed, count * request.seeds_each)
    if steps_file is not None or request.like is not None:
        _check_alone(step, count * request.seeds_each)
    if steps_file is not None:
        _run_list(request, image, steps_file, out, as_json=as_json)
        return
    step = _like(request, step.mask) or step
    _run(request, image, step, count=count, out=out, as_json=as_json)


def _check_output(out: Path | None, image: Path) -> None:
    check_output_name(out)
    if out is not None and out.exists() and image.exists() and out.samefile(image):
        raise UsageError(f"got the source {image} as output; expected another name")


def _check_alone(step: Step, images: int) -> None:
    if images > 1 or replace(step, mask=None, seed=0) != Step():
        raise UsageError("got --list or --like beside an edit, -n or --best-of; expected one alone")


def _like(request: Request, mask: str | None) -> Step | None:
    """The edit that the image of --like was made by, if there is one."""
    from calotype.generation.edit_list import step_like

    return (
        None
        if request.like is None
        else step_like(request.like, None if mask is None else Path(mask))
    )


def _run_list(
    request: Request, image: Path, steps_file: Path, out: Path | None, *, as_json: bool
) -> None:
    """Edit step by step; each step's image is written, or left as it is if it is there already."""
    from calotype.cascade.png import write_png
    from calotype.cascade.results import drain
    from calotype.generation.cascade import CascadeGenerator, settle
    from calotype.generation.edit_list import check_steps, edited, read_steps

    _check_output(out, image)
    steps = read_steps(steps_file)
    inner = CascadeGenerator(settle(request))
    last = Path(f"{image.stem}-edited.png") if out is None else out
    check_steps(inner, image, steps, last)
    names = []
    with progress(len(steps), quiet=as_json) as show:
        for name, making in edited(inner, image, steps, last):
            if making is not None:
                (made,) = drain(making, show)
                write_png(name, made.pixels, made.recipe)
            names.append(str(name))
            if not as_json:
                print(name, flush=True)
    if as_json:
        print(json.dumps({"files": names}))


def _outputs(image: Path, out: Path | None, recipes: list[dict[str, Any]]) -> list[Output]:
    outputs = []
    for number, recipe in enumerate(recipes):
        output = output_with_id(Path(f"{image.stem}-edited-{recipe['seed']}.png"), recipe)
        if out is not None:
            name = numbered_name(out, number, len(recipes))
            output = Output((name,), replace=len(recipes) == 1)
        output.check(recipe)
        outputs.append(output)
    return outputs


def _run(
    request: Request, image: Path, step: Step, *, count: int, out: Path | None, as_json: bool
) -> None:
    """Make the images, write them and say so."""
    from calotype.generation.edit import open_editor

    _check_output(out, image)
    begin = time.perf_counter()
    seeds = [step.seed + number * request.seeds_each for number in range(count)]
    generator = open_editor(request, image, step)
    plan = generator.plan([step.caption] * count, seeds)
    outputs = _outputs(image, out, [generator.recipe(plan, row) for row in range(count)])
    names, recipes = [], []
    made = made_in_groups(generator, plan, count, quiet=as_json)
    for output, one in zip(outputs, made, strict=True):
        names.append(str(output.write(one.pixels, one.recipe)))
        recipes.append(one.recipe)
    if as_json:
        seconds = round(time.perf_counter() - begin, 3)
        print(json.dumps({"files": names, "images": recipes, "seconds": seconds}))
        return
    for name in names:
        print(name)
