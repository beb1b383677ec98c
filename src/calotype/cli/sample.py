"""`calotype sample`: captions to images."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cli import options as shared
from calotype.cli import sample_options as own
from calotype.cli.data.ray import GpusPerWorker, Ray, gpus_of_worker
from calotype.cli.options import OutputOptions, check_seed, read_like
from calotype.cli.sample_list import sample_list
from calotype.cli.showing import made_in_groups
from calotype.cli.visible import visible
from calotype.errors import UsageError
from calotype.generation.outputs import OWN, check_output_name, few_outputs
from calotype.generation.prompts import open_prompts
from calotype.generation.request import GuideRequest, Request, parse_size

if TYPE_CHECKING:
    from calotype.generation.generator import ImageGenerator, Made

IMAGEN_PYTORCH_FILE = "imagen.json"  # said here, too, so that other models need not that package
_MAX_IMAGES = 1_000_000
_MAX_SHEET = 256
_MAX_SHEET_PIXELS = 2**26


def sample(
    captions: own.Captions = None,
    out: shared.Out = None,
    model: shared.Model = None,
    count: own.Count = 1,
    seed: own.FirstSeed = None,
    steps: own.Steps = None,
    sampler: own.Sampler = None,
    guidance: own.Guidance = None,
    variety: own.Variety = None,
    class_name: own.ClassNames = None,
    classifier: own.Classifier = None,
    classifier_scale: own.ClassifierScale = None,
    clip_guidance: own.ClipGuidance = None,
    guidance_form: own.Form = None,
    size: own.Size = None,
    width: own.Width = None,
    height: own.Height = None,
    stage_option: shared.StageOptions = None,
    negative: shared.Negative = None,
    lora: shared.Loras = None,
    merge_lora: shared.MergeLora = True,
    from_file: own.FromFile = None,
    grid: own.Grid = False,
    like: own.Like = None,
    write_captions: own.WriteCaptions = False,
    workers: own.Workers = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    batch: own.Batch = None,
    best_of: own.BestOf = None,
    clip: shared.Clip = None,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Sample images from captions; each PNG carries its recipe.

    With --from-file images that are there already, with the same recipe, are skipped.
    """
    if not 1 <= count <= _MAX_IMAGES:
        raise UsageError(f"got -n {count}; expected 1 to {_MAX_IMAGES}")
    if captions and from_file is not None:
        raise UsageError("got captions and --from-file; expected one of them")
    recipe = read_like(like, kind="sample")
    first = seed if seed is not None else (0 if recipe is None else int(recipe["seed"]))
    options = OutputOptions(
        output=out,
        seed=first,
        count=count,
        grid=grid,
        as_json=as_json,
        write_captions=write_captions,
        workers=workers,
        ray=ray,
        gpus=gpus_of_worker(gpus_per_worker, ray),
        batch=batch,
    )
    options.check(is_list=from_file is not None and not grid, is_file=str(from_file) != "-")
    request = Request(
        negative=negative,
        model=model,
        size=None if size is None else parse_size(size),
        width=width,
        height=height,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        variety=variety,
        class_name=class_name[0] if class_name else None,
        guides=GuideRequest(classifier, classifier_scale, clip_guidance, guidance_form),
        stage_options=stage_option,
        like=recipe,
        loras=lora,
        merge_lora=merge_lora,
        device=device,
        dtype=dtype,
        threads=threads,
        best_of=best_of,
        clip=clip,
    )
    classes = tuple(class_name or ())
    _run(captions, from_file, classes, request=request, options=options)


def _run(
    captions: Sequence[str] | None,
    from_file: Path | None,
    classes: Sequence[str],
    *,
    request: Request,
    options: OutputOptions,
) -> None:
    """Make what is asked for: images of captions, or of a list."""
    check_seed(options.seed, options.count * request.seeds_each)
    if from_file is None:
        _sample_few(_captions(captions, request), request, options, classes)
        return
    if len(classes) > 1:
        raise UsageError(f"got --from-file with {len(classes)} of --class; expected one")
    # Where all machines see it.
    folder = None if options.ray is None else (options.output or Path("x")).resolve().parent
    with open_prompts(from_file, shared=folder) as prompts:
        if options.grid or is_imagen_pytorch(request.model):
            options.check(is_list=False, is_file=True)
            _check_sheet(prompts.captions * options.count if options.grid else 0)
            _sample_few(list(prompts.read()), request, options)
        else:
            sample_list(prompts, request, options)


def _captions(given: Sequence[str] | None, request: Request) -> list[str]:
    if given:
        _hint_at_quotes(given)
        return list(given)
    if request.like is not None:
        return [request.like["caption"]]
    if request.class_name is not None or request.guides.classifier is not None:
        return [""]
    if _takes_no_text(request.model):
        return [""]
    raise UsageError("got no caption; expected e.g. calotype sample 'a red fox' -o fox.png")


def _takes_no_text(model: str | None) -> bool:
    if is_imagen_pytorch(model):
        return False
    from calotype.cascade.find import open_cascade

    return open_cascade(model).config.text_encoder == "none"


def _hint_at_quotes(captions: Sequence[str]) -> None:
    """Words of one caption that a shell took apart look like captions of one word each."""
    if len(captions) > 2 and all(caption.split() == [caption] for caption in captions):
        print(
            f"calotype: got {len(captions)} captions of one word, and makes an image of each; for "
            f'one of all words quote them: calotype sample "{visible(" ".join(captions)):.200}"',
            file=sys.stderr,
        )


def _check_sheet(total: int) -> None:
    if total > _MAX_SHEET:
        raise UsageError(f"got --grid with {total} images; expected at most {_MAX_SHEET}")


def is_imagen_pytorch(model: str | None) -> bool:
    """Whether a model is a folder that `calotype convert` wrote from a file of imagen-pytorch."""
    return model is not None and (Path(model) / IMAGEN_PYTORCH_FILE).is_file()


def _load_generators(
    request: Request, classes: Sequence[str], *, quiet: bool
) -> list[ImageGenerator[Any]]:
    """What makes the images: one, or one a class."""
    if is_imagen_pytorch(request.model):
        from calotype.interop.imagen_pytorch.generator import open_imagen

        return [open_imagen(request, quiet=quiet)]
    from calotype.generation.by_class import open_by_class
    from calotype.generation.cascade import open_generator, settle

    return open_by_class(request, classes) if classes else [open_generator(settle(request))]


def _sample_few(
    captions: Sequence[str],
    request: Request,
    options: OutputOptions,
    classes: Sequence[str] = (),
) -> None:
    """Make images of captions of the command line, of each class, or a sheet of them."""
    each_class = len(captions) * options.count
    total = each_class * max(1, len(classes))
    if options.grid:
        _check_sheet(total)
    check_output_name(options.output)
    begin = time.perf_counter()
    generators = _load_generators(request, classes, quiet=options.as_json)
    texts = [text for text in captions for _ in range(options.count)]
    each = request.seeds_each
    seeds = [options.seed + i * each for _ in captions for i in range(options.count)]
    plans = [(one, one.plan(texts, seeds)) for one in generators]  # errors before computing
    recipes = [one.recipe(plan, row) for one, plan in plans for row in range(each_class)]
    made_of = partial(made_in_groups, total=each_class, quiet=options.as_json)
    images = chain.from_iterable(starmap(made_of, plans))
    if options.grid and total > 1:
        names = [_write_sheet(images, recipes, plans[0][1].size, options)]
    else:
        outputs = few_outputs(options.output, recipes, write_captions=options.write_captions)
        names = []
        for row, (output, made) in enumerate(zip(outputs, images, strict=True)):
            names.append(output.write(made.pixels, made.recipe))
            recipes[row] = made.recipe
    report = _report(names, recipes)
    if len(names) < total:
        report["kind"] = "grid"
    if options.as_json:
        print(json.dumps({**report, "seconds": round(time.perf_counter() - begin, 3)}))
        return
    for name in names:
        print(name)


def _write_sheet(
    images: Iterator[Made],
    recipes: list[dict[str, Any]],
    size: tuple[int, int],
    options: OutputOptions,
) -> Path:
    """Write images of one size, height and width, as one sheet; its name."""
    from calotype.cascade.pixels import contact_sheet

    if size[0] * size[1] * len(recipes) > _MAX_SHEET_PIXELS:
        raise UsageError("got --grid with too many images for one sheet; use a smaller --size")

    def recipe() -> dict[str, Any]:
        of = [
            {key: one[key] for key in OWN if key != "negative_caption" and key in one}
            for one in recipes
        ]
        return {**recipes[0], "kind": "grid", "of": of}

    output = few_outputs(options.output, [recipe()], write_captions=False)[0]
    made = list(images)
    recipes[:] = [one.recipe for one in made]
    return output.write(contact_sheet([one.pixels for one in made]), recipe())


def _report(names: Sequence[Path], recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    files = [str(name) for name in names] if len(names) == len(recipes) else [str(names[0])]
    images = [
        {"file": files[min(i, len(files) - 1)], **{k: recipe[k] for k in OWN if k in recipe}}
        for i, recipe in enumerate(recipes)
    ]
    common = {k: v for k, v in recipes[0].items() if k not in OWN}
    return {"files": files, "pictures": images, **common}
