"""`calotype sample`: captions to pictures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.data.progress import counting
from calotype.cli.data.ray import GpusPerWorker, Ray, gpu_share
from calotype.cli.drawing import DrawRequest, contact_sheet, progress
from calotype.cli.imagen_pytorch import ImagenDrawer, is_converted
from calotype.cli.loras import Loras, MergeLora
from calotype.cli.options import (
    Device,
    Dtype,
    Json,
    Model,
    Negative,
    Out,
    StageOptions,
    Threads,
    check_seed,
    parse_size,
)
from calotype.cli.outputs import (
    check_output_name,
    default_output,
    few_outputs,
    name_with_id,
    numbered_name,
)
from calotype.cli.prompts import open_prompts
from calotype.cli.visible import visible
from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from calotype.cli.list_job import ListJob
    from calotype.cli.prompts import PromptFile

_MAX_PICTURES = 1_000_000
_MAX_SHEET = 256
_MAX_SHEET_PIXELS = 2**26


def sample(
    captions: Annotated[
        list[str] | None, typer.Argument(help="What to draw; '' draws without a caption.")
    ] = None,
    out: Out = None,
    model: Model = None,
    count: Annotated[
        int, typer.Option("-n", help="Pictures a caption, with seeds s, s+1, ...")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first image, 0 to 2^63-1; 0 if not given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the base stage.")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Sampler of the base stage: ddpm, ddim, dpmpp_2m, dpmpp_2m_sde or heun; the "
            "model's own if not given."
        ),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance weight of the base stage; 1 = off.")
    ] = None,
    variety: Annotated[
        float | None,
        typer.Option(
            help="0 keeps to the draft, 1 differs most between seeds; of the base, if it samples "
            "from a draft."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Resolution of the last stage drawn (64, 256, 1024), or WIDTHxHEIGHT."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Width in pixels; a side that is not given is the model's last stage's."),
    ] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels.")] = None,
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
    workers: Annotated[
        int | None,
        typer.Option(
            help="With --from-file: processes that draw; 1 (this one) if not given, on Ray as many "
            "as there are cores.",
            show_default=False,
        ),
    ] = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="With --from-file: pictures drawn together by a worker; up to 64 if not given.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Draw pictures of captions; each PNG carries its recipe.

    With --from-file pictures that are there already, with the same recipe, are skipped.
    """
    if not 1 <= count <= _MAX_PICTURES:
        raise UsageError(f"got -n {count}; expected 1 to {_MAX_PICTURES}")
    if captions and from_file is not None:
        raise UsageError("got captions and --from-file; expected one of them")
    recipe = _read_like(like)
    first = seed if seed is not None else (0 if recipe is None else int(recipe["seed"]))
    check_seed(first, count)
    order = _Order(
        output=out,
        seed=first,
        count=count,
        grid=grid,
        as_json=as_json,
        write_captions=write_captions,
        workers=workers,
        ray=ray,
        gpus=gpu_share(gpus_per_worker, ray),
        batch=batch,
    )
    order.check(is_list=from_file is not None and not grid)
    request = DrawRequest(
        negative=negative,
        model=model,
        size=None if size is None else parse_size(size),
        width=width,
        height=height,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        variety=variety,
        stage_options=stage_option,
        like=recipe,
        loras=lora,
        merge_lora=merge_lora,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    if from_file is None:
        _draw_few(_captions(captions, recipe), request, order)
        return
    # Where all machines see it.
    folder = None if ray is None else (out or Path("x")).resolve().parent
    with open_prompts(from_file, shared=folder) as prompts:
        if grid or is_converted(model):
            order.check(is_list=False)
            _check_sheet(prompts.captions * count if grid else 0)
            _draw_few(list(prompts.read()), request, order)
        else:
            _draw_list(prompts, request, order)


@dataclass(frozen=True)
class _Order:
    """What is asked of this command that does not change a picture."""

    output: Path | None
    seed: int
    count: int
    grid: bool
    as_json: bool
    write_captions: bool
    workers: int | None
    ray: str | None
    gpus: float
    batch: int | None

    def check(self, *, is_list: bool) -> None:
        """Refuse settings of long lists elsewhere, and numbers out of range."""
        numbers = {"--workers": self.workers, "--batch": self.batch}
        for name, given in {**numbers, "--ray": self.ray}.items():
            if given is not None and not is_list:
                raise UsageError(f"got {name} without a list; expected --from-file, and no --grid")
        for name, number in numbers.items():
            if number is not None and not 1 <= number <= 4096:
                raise UsageError(f"got {name} {number}; expected 1 to 4096")


def _read_like(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    from calotype.cascade.png import read_recipe
    from calotype.cascade.recipe import check_recipe

    recipe = read_recipe(path)
    check_recipe(recipe)
    return recipe


def _captions(given: Sequence[str] | None, recipe: dict[str, Any] | None) -> list[str]:
    if given:
        _hint_at_quotes(given)
        return list(given)
    if recipe is not None:
        return [recipe["caption"]]
    raise UsageError("got no caption; expected e.g. calotype sample 'a red fox' -o fox.png")


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
        raise UsageError(f"got --grid with {total} pictures; expected at most {_MAX_SHEET}")


def _draw_list(prompts: PromptFile, request: DrawRequest, order: _Order) -> None:
    """Draw what is not there of a list, and say what was."""
    total = prompts.captions * order.count
    check_output_name(order.output)
    begin = time.perf_counter()
    from calotype.cli.draw_job import expected_recipe, on_workers, settle
    from calotype.cli.list_job import ListJob, draw_list
    from calotype.data.work import usable_cores

    draw = settle(request)
    recipe = expected_recipe(draw, prompts.first, order.seed)
    name = order.output
    if name is None:  # one for the whole list, found again by the same command
        name = name_with_id(default_output(recipe).names[0], recipe)
    workers = order.workers
    if workers is None:
        workers = 1 if order.ray is None else usable_cores()
    alone = workers == 1 and order.ray is None
    if not alone:
        draw = on_workers(draw, workers, threads=request.threads, gpus=order.gpus)
    job = ListJob(
        draw,
        prompts,
        order.count,
        order.seed,
        name.resolve(),
        replace=order.output is not None and total == 1,
        write_captions=order.write_captions,
    )
    job.check(recipe)
    skipped, common = 0, dict[str, Any]()
    with (
        progress(total, quiet=order.as_json or not alone) as show,
        counting("pictures", quiet=order.as_json or alone) as advance,
    ):
        for shard in draw_list(job, size=order.batch, workers=workers, ray=order.ray, show=show):
            advance(shard.drawn + shard.skipped)
            skipped += shard.skipped
            common = shard.common
    if order.as_json:
        seconds = round(time.perf_counter() - begin, 3)
        _print_list_json(name, job, {**common, "skipped": skipped, "seconds": seconds})
        return
    if skipped:
        print(f"calotype: {skipped:,} of {total:,} pictures were there already", file=sys.stderr)
    for number in range(total):
        print(numbered_name(name, number, total))


def _print_list_json(name: Path, job: ListJob, common: dict[str, Any]) -> None:
    """The report, written bit by bit: a list may be long."""
    negative, total = job.draw.negative, job.total

    def pictures() -> Iterator[dict[str, Any]]:
        texts = (text for text in job.prompts.read() for _ in range(job.repeats))
        for number, caption in enumerate(texts):
            own = {"caption": caption, "negative_caption": negative}
            seed = job.seed + number % job.repeats
            yield {"file": str(numbered_name(name, number, total)), **own, "seed": seed}

    print('{"files": [', end="")
    for number in range(total):
        print(", " * (number > 0) + json.dumps(str(numbered_name(name, number, total))), end="")
    print('], "pictures": [', end="")
    for number, picture in enumerate(pictures()):
        print(", " * (number > 0) + json.dumps(picture), end="")
    print("], " + json.dumps(common)[1:])


def _draw_few(captions: Sequence[str], request: DrawRequest, order: _Order) -> None:
    """Draw captions of the command line, or a sheet."""
    total = len(captions) * order.count
    if order.grid:
        _check_sheet(total)
    check_output_name(order.output)
    begin = time.perf_counter()
    from calotype.cli.draw_job import Drawer, settle

    drawer: Any  # both have the same calls, each with plans of its own
    if is_converted(request.model):
        drawer = ImagenDrawer(request, quiet=order.as_json)
    else:
        drawer = Drawer(settle(request))
    texts = [text for text in captions for _ in range(order.count)]
    seeds = [order.seed + i for _ in captions for i in range(order.count)]
    plan = drawer.plan(texts, seeds)  # errors before computing
    recipes = [drawer.recipe(plan, row) for row in range(total)]
    if order.grid and total > 1:
        names = [_draw_sheet(drawer, recipes, plan.stages[-1].shown, order)]
    else:
        outputs = few_outputs(order.output, recipes, write_captions=order.write_captions)
        names = [
            output.write(pixels, recipe)
            for output, pixels, recipe in zip(
                outputs, _draw(drawer, recipes, order), recipes, strict=True
            )
        ]
    report = _report(names, recipes)
    if len(names) < total:
        report["kind"] = "grid"
    if order.as_json:
        print(json.dumps({**report, "seconds": round(time.perf_counter() - begin, 3)}))
        return
    for name in names:
        print(name)


def _draw(drawer: Any, recipes: Sequence[dict[str, Any]], order: _Order) -> Iterator[np.ndarray]:
    """The pictures of recipes, (H, W, 3) uint8, drawn in groups that fit in memory."""
    with progress(len(recipes), quiet=order.as_json) as show:
        for start in range(0, len(recipes), drawer.job.group):
            group = recipes[start : start + drawer.job.group]
            plan = drawer.plan([one["caption"] for one in group], [one["seed"] for one in group])
            yield from drawer.draw(plan, show)


def _draw_sheet(
    drawer: Any, recipes: Sequence[dict[str, Any]], size: tuple[int, int], order: _Order
) -> Path:
    """Draw pictures of one size, height and width, into one sheet; its name."""
    if size[0] * size[1] * len(recipes) > _MAX_SHEET_PIXELS:
        raise UsageError("got --grid with too many pictures for one sheet; use a smaller --size")
    pictures = [{"caption": one["caption"], "seed": one["seed"]} for one in recipes]
    recipe = {**recipes[0], "kind": "grid", "of": pictures}
    output = few_outputs(order.output, [recipe], write_captions=False)[0]
    return output.write(contact_sheet(list(_draw(drawer, recipes, order))), recipe)


def _report(names: Sequence[Path], recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = ("caption", "negative_caption", "seed")
    files = [str(name) for name in names] if len(names) == len(recipes) else [str(names[0])]
    pictures = [
        {"file": files[min(i, len(files) - 1)], **{k: recipe[k] for k in own}}
        for i, recipe in enumerate(recipes)
    ]
    common = {k: v for k, v in recipes[0].items() if k not in own}
    return {"files": files, "pictures": pictures, **common}
