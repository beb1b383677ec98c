"""`calotype evaluate`: a model, or images, in numbers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calotype.cli import evaluate_inputs as inputs
from calotype.cli import evaluate_options as own
from calotype.cli import options as shared
from calotype.cli import sample_options
from calotype.cli.data.ray import GpusPerWorker, Ray, gpus_of_worker
from calotype.cli.evaluate_card import card_parts, renew
from calotype.cli.evaluate_measures import measure_options
from calotype.cli.options import check_seed
from calotype.cli.visible import visible
from calotype.errors import UsageError
from calotype.generation.request import Request, parse_size
from calotype.launch import launched_place
from calotype.progress import Display

if TYPE_CHECKING:
    from calotype.evaluation.evaluate import Sampler, Watch
    from calotype.evaluation.measure import Measured
    from calotype.generation.executors import Executor

_BYTES_A_PIXEL = 1.5  # of a PNG, about


def evaluate(
    source: own.Source,
    suite: own.SuiteName,
    out: own.OutFolder,
    reference: own.Reference = None,
    each: own.Each = 1,
    seed: shared.Seed = 0,
    prompts: own.Prompts = None,
    coco_list: own.CocoList = None,
    without_people: own.WithoutPeople = None,
    reference_split: own.ReferenceSplit = None,
    reference_images: own.ReferenceImages = None,
    training: own.TrainingImages = None,
    alexnet: own.AlexNet = None,
    losses: own.Losses = 0,
    features: own.Features = None,
    clip: own.ClipScore = None,
    side: own.Side = None,
    scorer: own.Scorers = None,
    scorer_timeout: own.ScorerTimeout = None,
    cache: own.FeaturesRoot = None,
    card: own.Card = False,
    card_part: own.CardPart = None,
    size: own.Size = None,
    width: sample_options.Width = None,
    height: sample_options.Height = None,
    steps: sample_options.Steps = None,
    sampler: sample_options.Sampler = None,
    guidance: sample_options.Guidance = None,
    variety: sample_options.Variety = None,
    class_name: sample_options.ClassName = None,
    stage_option: shared.StageOptions = None,
    negative: shared.Negative = None,
    lora: shared.Loras = None,
    best_of: sample_options.BestOf = None,
    workers: own.Workers = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Sample a suite, measure it beside real images, and write numbers and a page.

    What is there of the same work is kept: a command that was broken off goes on.
    """
    check_seed(seed)
    if not 1 <= each <= 10_000:
        raise UsageError(f"got -n {each}; expected 1 to 10000")
    request = Request(
        model=None if source == "default" else source,
        size=None if size is None else parse_size(size),
        width=width,
        height=height,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        variety=variety,
        class_name=class_name,
        stage_options=stage_option,
        negative=negative,
        loras=lora,
        best_of=best_of,
        device=device, dtype=dtype, threads=threads,
    )  # fmt: skip
    from calotype.evaluation.evaluate import evaluate as run

    asked = inputs.read_named_suite(
        suite, prompts=prompts, coco_list=coco_list, without_people=without_people
    )
    made = card_parts(card_part, suite, request.model) if card else None
    what = inputs.sampler_of(source, request, each=each, seed=seed)
    options = measure_options(
        asked, side=inputs.default_side(what) if side is None else side, device=device,
        features=features, clip=clip, cache=cache, scorers=scorer, scorer_timeout=scorer_timeout,
        reference=reference, reference_split=reference_split, reference_images=reference_images,
        training=training, alexnet=alexnet,
    )  # fmt: skip
    executor = inputs.executor_of(workers, ray, gpus_of_worker(gpus_per_worker, ray))
    sampling = on_workers(what, executor, threads=threads)
    what = inputs.with_losses(sampling, request, reference, losses)
    check_room(out, what, len(asked.suite.prompts) * each)
    with watching(quiet=as_json) as watch:
        found = run(what, asked.suite, out, options, executor=executor, watch=watch)
        if found is not None and made is not None:
            renew(found, out, request, options, made, watch)
    if found is not None:
        _tell(found, out, as_json=as_json)


def on_workers(what: Sampler | Path, executor: Executor, *, threads: int | None) -> Sampler | Path:
    """The sampler for several processes, each with its part of the threads."""
    from calotype.generation import cascade, executors

    if executor.alone or isinstance(what, Path) or not isinstance(what.settings, cascade.Job):
        return what
    settings = executors.on_workers(
        what.settings, executor.workers, threads=threads, gpus=executor.gpus
    )
    return replace(what, settings=settings)


def check_room(folder: Path, what: Sampler | Path, images: int) -> None:
    """Refuse to sample more than the disk has room for.

    Raises:
        UsageError: there is less room.
    """
    if isinstance(what, Path):
        return
    last = what.common["stages"][-1]
    needed = images * last.get("height", 64) * last.get("width", 64) * _BYTES_A_PIXEL
    parent = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(parent).free
    if needed > free and not (folder / "samples").exists():
        raise UsageError(
            f"got about {needed / 1e9:.1f} GB of images for {parent}, where {free / 1e9:.1f} GB "
            "are free; choose another folder with -o, or fewer prompts"
        )


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watch]:
    """Progress on stderr: lines of what is done, and a bar of the images."""
    from calotype.evaluation.evaluate import Watch

    quiet = quiet or launched_place().rank > 0

    def say(text: str) -> None:
        stack.close()  # the bar of what is done
        if not quiet:
            print(f"calotype: {visible(text)}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        bars: list[Display] = []

        def begin(total: int) -> None:
            bars.append(stack.enter_context(Display("images", quiet=quiet, total=total)))

        def advance(images: int) -> None:
            bars[-1].advance(images)

        yield Watch(say=say, begin=begin, advance=advance)


def _tell(found: Measured, out: Path, *, as_json: bool) -> None:
    """Print the numbers of the whole set, and those of categories that checks give."""
    from calotype.config.typed_json import to_dict
    from calotype.evaluation.report.figures import decimals, interval
    from calotype.evaluation.results import CHECKED

    results = found.results
    if as_json:
        numbers = [to_dict(number) for number in results.numbers]
        print(json.dumps({"page": str(out / "index.html"), "numbers": numbers}))
        return
    for number in results.numbers:
        if number.group is None:
            notes = "; ".join(
                (*([f"95 %: {interval(number)}"] * (number.low is not None)), *number.notes)
            )
            print(f"{number.label:44} {decimals(number.value):>10}  {notes}")
    for group, number in results.of_group(CHECKED).items():
        print(f"{visible(group):44} {number.value:>9.0%}  of {number.count} right")
    for group, why in results.left_to_people.items():
        print(f"{visible(group):44} {'–':>10}  {why}")
    print(out / "index.html")
