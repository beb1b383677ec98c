"""`calotype sample --from-file`: long lists of captions."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cli.options import OutputOptions
from calotype.cli.showing import progress
from calotype.generation.outputs import (
    check_output_name,
    default_output,
    name_with_id,
    numbered_name,
)
from calotype.generation.request import Request
from calotype.launch import launched_place
from calotype.progress import Display

if TYPE_CHECKING:
    from calotype.generation.lists import ListJob
    from calotype.generation.prompts import PromptFile


def sample_list(prompts: PromptFile, request: Request, options: OutputOptions) -> None:
    """Make what is not there of a list, and say what was."""
    total = prompts.captions * options.count
    check_output_name(options.output)
    begin = time.perf_counter()
    from calotype.data.work import usable_cores
    from calotype.generation.cascade import expected_recipe, settle
    from calotype.generation.executors import Executor, on_workers
    from calotype.generation.lists import ListJob, generate_list

    settings = settle(request)
    recipe = expected_recipe(settings, prompts.first, options.seed)
    name = options.output
    if name is None:  # one for the whole list, found again by the same command
        name = name_with_id(default_output(recipe).names[0], recipe)
    workers = options.workers
    if workers is None:
        workers = 1 if options.ray is None else usable_cores()
    executor = Executor(workers, options.ray, options.gpus)
    if not executor.alone:
        settings = on_workers(settings, workers, threads=request.threads, gpus=options.gpus)
    job = ListJob(
        settings,
        prompts,
        options.count,
        options.seed,
        name.resolve(),
        replace=options.output is not None and total == 1,
        write_captions=options.write_captions,
    )
    job.check(recipe)
    skipped, common = 0, dict[str, Any]()
    quiet = options.as_json or launched_place().rank > 0
    with (
        progress(total, quiet=quiet or not executor.alone) as show,
        Display("images", quiet=quiet or executor.alone) as display,
    ):
        for shard in generate_list(job, size=options.batch, executor=executor, show=show):
            display.advance(shard.made + shard.skipped)
            skipped += shard.skipped
            common = shard.common
    if launched_place().rank > 0:
        return
    if options.as_json:
        seconds = round(time.perf_counter() - begin, 3)
        _print_list_json(name, job, {**common, "skipped": skipped, "seconds": seconds})
        return
    if skipped:
        print(f"calotype: {skipped:,} of {total:,} images were there already", file=sys.stderr)
    for number in range(total):
        print(numbered_name(name, number, total))


def _print_list_json(name: Path, job: ListJob, common: dict[str, Any]) -> None:
    """The report, written bit by bit: a list may be long."""
    from calotype.cascade.png import read_recipe
    from calotype.cascade.recipe import class_note

    negative, total = job.settings.negative, job.total

    def images() -> Iterator[dict[str, Any]]:
        texts = (text for text in job.prompts.read() for _ in range(job.repeats))
        for number, caption in enumerate(texts):
            own = {"caption": caption, "negative_caption": negative}
            seed = job.seed_of(number)
            file = numbered_name(name, number, total)
            image: dict[str, Any] = {"file": str(file), **own, "seed": seed}
            if job.settings.best_of is not None:
                made = read_recipe(file)
                seed = made["seed"]
                image |= {"seed": seed, "best_of": made["best_of"]}
            yield {**image, **class_note(job.settings.class_of(seed))}

    print('{"files": [', end="")
    for number in range(total):
        print(", " * (number > 0) + json.dumps(str(numbered_name(name, number, total))), end="")
    print('], "pictures": [', end="")
    for number, image in enumerate(images()):
        print(", " * (number > 0) + json.dumps(image), end="")
    print("], " + json.dumps(common)[1:])
